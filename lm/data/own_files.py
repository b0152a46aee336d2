"""Reads the user's own text files: one file, the files matching a pattern, or all files in a directory."""

import glob
import hashlib
import os
import stat
from typing import NamedTuple

from lm.errors import UserError


class OwnFile(NamedTuple):
    """A file and its content."""

    path: str
    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def text_sha256(self) -> str:
        """SHA-256 that ignores byte-order mark, CRLF line ends and surrounding white space; "" for an empty text."""
        text = self.content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").strip()
        return hashlib.sha256(text).hexdigest() if text else ""


def read_own(path: str, key: str) -> list[OwnFile]:
    """Reads a file, the files matching a pattern such as "texts/*.txt", or all files in a directory, sorted by path.

    Leaves out hidden files. key: config key or flag for errors, such as config.data.path. Raises UserError if no file
    is found or one cannot be read, and for devices and pipes, which might never end.
    """
    if not path:
        raise UserError(f"{key} is empty: name your text with --{key}=FILE")
    where, whole = f"{key}={path}", os.path.expanduser(path)
    if os.path.isdir(whole):
        found = sorted(glob.glob(os.path.join(glob.escape(whole), "**", "*"), recursive=True))
        found = [name for name in found if os.path.isfile(name)]
    elif os.path.exists(whole) or not glob.has_magic(whole):
        found = [whole]
    else:
        found = sorted(glob.glob(whole, recursive=True))
    if not found:
        raise UserError(f"{where}: no such file" if glob.has_magic(whole) else f"{where}: the directory has no file")
    return [OwnFile(name if len(found) > 1 else path, _read(name, f"{key}={name}")) for name in found]


def _read(path: str, where: str) -> bytes:
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise UserError(f"{where}: not a regular file")
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UserError(f"{where}: {getattr(error, 'strerror', None) or error}") from error


def read_bytes(path: str) -> bytes:
    """Reads a file or a pipe. Raises OSError if it cannot be read, and for a device, which might never end."""
    with open(path, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISBLK(mode) or (stat.S_ISCHR(mode) and not file.isatty()):
            raise OSError(0, "a device, not a file")
        return file.read()
