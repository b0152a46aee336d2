"""samples.txt: the texts that a run samples during training, each set under a heading, with a border between texts.

A checkpoint holds the file's length. Text beyond it, left by a kill, belongs to steps that will be repeated. It is cut
off when the run resumes, so that the file ends as if the run had never stopped.
"""

import os

from lm.runs.files import writing

NAME = "samples.txt"


def bordered(texts: list[str]) -> str:
    """The texts, one below the other, with a line of dashes between them: a text may have line ends of its own."""
    return f"\n{'-' * 40}\n".join(texts)


def append(workdir: str, heading: str, texts: list[str]) -> int:
    """Appends texts under a heading and returns the file's length in bytes.

    Raises UserError if the file cannot be written.
    """
    rule, path = "=" * 80, os.path.join(workdir, NAME)
    section = "\n".join([rule, heading, rule, bordered(texts), ""]) + "\n"
    with writing(path), open(path, "ab") as file:
        file.write(section.encode())
        return file.tell()


def cut(workdir: str, length: float):
    """Truncates the file to `length` bytes; a shorter or missing file stays as it is.

    Raises UserError if the file cannot be written.
    """
    path = os.path.join(workdir, NAME)
    with writing(path):
        if os.path.exists(path) and os.path.getsize(path) > length:
            os.truncate(path, int(length))
