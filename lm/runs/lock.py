"""Locks a work directory, so that only one process at a time uses it."""

import contextlib
import fcntl
from collections.abc import Generator
from pathlib import Path

from lm.errors import UserError
from lm.runs.files import make_directory, writing

NAME = ".lock"  # an empty file; the kernel releases the lock when the process ends, even by SIGKILL


@contextlib.contextmanager
def alone(directory: str | Path) -> Generator[None]:
    """Creates a directory if missing and locks it. Lock a directory before changing its content. Raises UserError if
    another process holds the lock, or if the directory cannot be created or written."""
    path = make_directory(directory) / NAME
    with writing(path):
        file = open(path, "a+b")  # noqa: SIM115 (closed below); "ab" would block on a pipe of this name
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"directory {directory} is in use by another process: wait for it, or choose another directory"
            ) from error
        yield
