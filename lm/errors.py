"""UserError, which is printed as one line without a traceback, and checks of the names that a user gives."""

import difflib
from collections.abc import Collection, Mapping
from typing import TypeVar

Entry = TypeVar("Entry")

# An error lists the known names if there are at most this many.
MOST_LISTED = 30


class UserError(Exception):
    """An error that the user can correct.

    The message is one line that names the flag, file or key at fault and says what would be right.
    `launch.py` prints it and exits with status 2. Any other exception is a bug and keeps its traceback.
    """


class NotFinite(UserError):
    """A loss or gradient is infinite or NaN. found: where and how; advice: for a run that ends with it"""

    def __init__(self, found: str, advice: str):
        super().__init__(f"{found}; {advice}")
        self.found, self.advice = found, advice


def first_line(error: BaseException) -> str:
    """First line of a library's error, at most 200 characters; its exception type if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def lookup(table: Mapping[str, Entry], name: str, where: str) -> Entry:
    """Returns table[name]. Raises UserError if the table lacks the name. where: the key or flag that gives it"""
    check_name(name, table, where)
    return table[name]


def check_name(name: str, known: Collection[str], where: str) -> None:
    """Raises UserError "WHERE: unknown 'NAME'; known: A, B; did you mean A?" unless the name is known."""
    if name not in known:
        raise UserError(f"{where}: unknown {in_short(name)}{suggestions(name, known)}")


def in_short(value: object) -> str:
    """repr(value), truncated to 100 characters."""
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + "..."


def suggestions(name: str, known: Collection[str]) -> str:
    """Returns "; known: A, B" if few names are known, and "; did you mean A?" if some are similar."""
    listed = f"; known: {', '.join(known)}" if len(known) <= MOST_LISTED else ""
    close = difflib.get_close_matches(name, known, n=3)
    return listed + (f"; did you mean {' or '.join(close)}?" if close else "")
