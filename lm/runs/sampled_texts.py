"""Writes samples.txt: the texts sampled during training, in sections with a heading.

Each checkpoint records the file's length. After a kill, text beyond this length belongs to steps that will be repeated:
it is cut off when the run resumes, so the file continues as if the run had never stopped.
"""

import os

from lm.runs.files import writing

NAME = "samples.txt"


def bordered(texts: list[str]) -> str:
    """Joins texts with a line of dashes, since a text may itself have several lines."""
    return f"\n{'-' * 40}\n".join(texts)


def append(workdir: str, heading: str, texts: list[str]) -> int:
    """Appends texts under a heading; returns the file's length in bytes. Raises UserError if it cannot be written."""
    rule, path = "=" * 80, os.path.join(workdir, NAME)
    section = "\n".join([rule, heading, rule, bordered(texts), ""]) + "\n"
    with writing(path), open(path, "ab") as file:
        file.write(section.encode())
        return file.tell()


def cut(workdir: str, length: float):
    """Truncates the file to `length` bytes, if it is longer. Raises UserError if it cannot be written."""
    path = os.path.join(workdir, NAME)
    with writing(path):
        if os.path.exists(path) and os.path.getsize(path) > length:
            os.truncate(path, int(length))
