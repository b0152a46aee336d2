"""One process at a time in a work directory."""

import contextlib
import fcntl
import os
from pathlib import Path

from lm.errors import UserError

NAME = ".lock"  # the file; the lock is on it, not in it, and goes with the process that holds it, however that ends


@contextlib.contextmanager
def alone(directory):
    """Holds the lock of a directory, which is made where it is missing. Nothing else in it may change before.

    Raises:
        UserError: another process holds it, or the directory cannot be made or written.
    """
    path = Path(directory, NAME)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir={directory}: cannot be made: {error.strerror}") from error
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(f"--workdir={directory}: cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        raise UserError(f"--workdir={directory}: another process is at work there: wait for it, or choose another "
                        "--workdir") from error  # fmt: skip
    try:
        yield
    finally:
        os.close(file)
