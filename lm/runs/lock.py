"""Locks a work directory, so that only one process at a time uses it."""

import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path

from lm.errors import UserError
from lm.runs.files import make_directory

NAME = ".lock"  # an empty file; the kernel releases the lock when the process ends, even by SIGKILL


@contextlib.contextmanager
def alone(directory: str | Path) -> Generator[None]:
    """Creates a directory if missing and locks it. Lock a directory before changing its content.

    Raises UserError if another process holds the lock, or if the directory cannot be created or written.
    """
    path = make_directory(directory) / NAME
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(f"directory {directory} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        raise UserError(
            f"directory {directory} is in use by another process: wait for it, or choose another directory"
        ) from error
    try:
        yield
    finally:
        os.close(file)
