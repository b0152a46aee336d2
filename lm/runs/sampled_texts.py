"""samples.txt: the texts that a run generates as it trains, each set of them under a heading.

A checkpoint holds the file's length. What a kill left beyond it belongs to steps that will be made again, and is cut
off when the run goes on, so that the file ends as if the run had never stopped.
"""

import os

from lm.errors import UserError

NAME = "samples.txt"


def append(workdir: str, heading: str, texts: list[str]) -> int:
    """Appends texts under a heading and returns the file's length in bytes.

    Raises UserError where the file cannot be written.
    """
    rule, path = "=" * 80, os.path.join(workdir, NAME)
    section = "\n".join([rule, heading, rule, *texts, ""]) + "\n"
    try:
        with open(path, "ab") as file:
            file.write(section.encode())
            return file.tell()
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def cut(workdir: str, length: float):
    """Drops what the file holds beyond `length` bytes; what is shorter, or not there, stays so.

    Raises UserError where the file cannot be written.
    """
    path = os.path.join(workdir, NAME)
    try:
        if os.path.exists(path) and os.path.getsize(path) > length:
            os.truncate(path, length)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
