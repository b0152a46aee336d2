"""Writes files atomically, and turns OSErrors into one-line UserErrors."""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Generator
from pathlib import Path

from lm.errors import UserError
from lm.runs.plain import plain

# Messages for a disk that is full or not writable.
DISK_ERRORS = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)))


def write_json(path: str | Path, value) -> None:
    """Writes plain(value) atomically as strict JSON. Numbers that are not finite become null."""
    text = json.dumps(plain(value), indent=2, allow_nan=False, ensure_ascii=False)
    write_bytes(path, (text + "\n").encode())


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes a file atomically: temporary file, fsync, rename. Raises UserError if it cannot be written."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def make_directory(path: str | Path) -> Path:
    """Creates `path` and its parents if missing, and returns `path`. Raises UserError on failure."""
    with _one_line(f"directory {path} cannot be made"):
        Path(path).mkdir(parents=True, exist_ok=True)
    return Path(path)


def make_own_directory(path: str | Path, *names: str) -> Path:
    """Creates a directory for a command that writes the files `names`. Raises UserError if it holds a run, or files of
    another command: some of `names` but not the first, which only this command writes."""
    path = Path(path)
    if (path / "config.json").exists():
        raise UserError(f"--workdir={path} holds a run: name another directory")
    found = [name for name in names if (path / name).exists()]
    if found and names[0] not in found:
        raise UserError(f"--workdir={path} holds {', '.join(found)}, which this command has not written: name another")
    return make_directory(path)


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file. Raises UserError if it cannot be read."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def read_bytes(path: str | Path) -> bytes:
    """The content of a file. Raises UserError if it cannot be read."""
    with _one_line(f"cannot read {path}"):
        return Path(path).read_bytes()


def writing(path: str | Path) -> contextlib.AbstractContextManager[None]:
    """Turns an OSError into a UserError that names `path`."""
    return _one_line(f"cannot write {path}")


@contextlib.contextmanager
def _one_line(failure: str) -> Generator[None]:
    """Turns an OSError into the UserError "FAILURE: REASON"."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{failure}: {error.strerror or error}") from error
