"""Writes files whole or not at all, and reports errors of the system in one line."""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Generator
from pathlib import Path

from lm.errors import UserError
from lm.runs.plain import plain

# Messages of a disk that is full or cannot be written.
DISK_ERRORS = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)))


def write_json(path: str | Path, value) -> None:
    """Writes plain(value) as `write_bytes` does: strict JSON, numbers that are not finite as null."""
    text = json.dumps(plain(value), indent=2, allow_nan=False, ensure_ascii=False)
    write_bytes(path, (text + "\n").encode())


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes a file whole or not at all: a temporary file, fsync, rename.

    Raises UserError if it cannot be written (no permission, disk full).
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def make_directory(path: str | Path) -> Path:
    """Makes `path` and its parents if they are missing, and returns it. Raises UserError if it cannot."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"directory {path} cannot be made: {error.strerror}") from error
    return path


def make_own_directory(path: str | Path, *names: str) -> Path:
    """`make_directory` for a command that writes these files. Raises UserError if the directory holds a run, or some of
    them without the first: then they are not this command's."""
    path = Path(path)
    if (path / "config.json").exists():
        raise UserError(f"--workdir={path} holds a run: name another directory")
    found = [name for name in names if (path / name).exists()]
    if found and found[0] != names[0]:
        raise UserError(f"--workdir={path} holds {', '.join(found)}, which this command has not written: name another")
    return make_directory(path)


def sha256_of(path: str | Path) -> str:
    """Of a file. Raises UserError if it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


@contextlib.contextmanager
def writing(path: str | Path) -> Generator[None]:
    """Turns an OSError into a UserError that names `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
