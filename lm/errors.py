"""The one error that users see: a single clear line, no traceback. And the check of every name that a user gives."""

import difflib
from collections.abc import Collection, Mapping
from typing import TypeVar

Entry = TypeVar("Entry")

# An error lists the known names up to this number.
MOST_LISTED = 24


class UserError(Exception):
    """Input that the user can mend.

    The message is one line that names the flag, file or key at fault and says what would be right.
    `launch.py` prints it and exits with status 2; everything else is a bug and keeps its traceback.
    """


class NotFinite(UserError):
    """A loss that is infinite or no number."""


def first_line(error: BaseException) -> str:
    """What a library's error says, for use in a message of ours: its first line, or its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def lookup(table: Mapping[str, Entry], name: str, where: str) -> Entry:
    """table[name]. Raises UserError where the table has no such name. where: the key or flag that gives it."""
    check_name(name, table, where)
    return table[name]


def check_name(name: str, known: Collection[str], where: str) -> None:
    """Raises UserError "WHERE: unknown 'NAME'; known: A, B; did you mean A?" unless the name is known."""
    if name not in known:
        raise UserError(f"{where}: unknown {in_short(name)}{suggestions(name, known)}")


def in_short(value: object) -> str:
    """repr(value), cut off after 100 characters: a message is one line that can be read."""
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + "..."


def suggestions(name: str, known: Collection[str]) -> str:
    """Text "; known: A, B" if they are few, and "; did you mean A?" if some are close."""
    listed = f"; known: {', '.join(known)}" if len(known) <= MOST_LISTED else ""
    close = difflib.get_close_matches(name, known, n=3)
    return listed + (f"; did you mean {' or '.join(close)}?" if close else "")
