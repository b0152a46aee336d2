"""The one error that users see: a single clear line, no traceback."""


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
