"""Handles Ctrl-C, SIGTERM and SIGHUP (sent when a terminal closes).

The command stops and prints how to resume. Training first finishes its step and saves.
`ending` is for complete commands, `listening` for training, `raising` for code that must clean up children or files.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """Raised when a run stops because of a signal, after saving. signal: its number"""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.signal = number


def how_to_resume(what: str, resumes: bool = True) -> str:
    """Last line printed by an interrupted command. resumes: whether it continues from a checkpoint when run again"""
    return f"{what}: run the same command again{' to resume from the last checkpoint' if resumes else ''}"


def status_of(number: int | None) -> int:
    """Exit status after a signal: 0 after SIGTERM, because stopping was requested; as in shells, 129 after SIGHUP and
    130 after Ctrl-C."""
    return {signal.SIGTERM: 0, signal.SIGHUP: 129}.get(number, 130)


def ending(resumes: bool = True):
    """Within this context, SIGNALS end the process at once with a one-line message. For code that writes atomically.

    resumes: see `how_to_resume`
    Ends the process instead of raising, because native imports and garbage-collector callbacks swallow exceptions or
    crash.
    """

    def end(number, frame):
        os.write(2, (how_to_resume("interrupted", resumes) + "\n").encode())
        os._exit(status_of(number))

    return _handler(end)


def raising():
    """Within this context, SIGNALS raise KeyboardInterrupt. For code that must clean up children or files."""

    def interrupt(number, frame):
        raise Interrupted(number, "interrupted")

    return _handler(interrupt)


@contextlib.contextmanager
def _handler(handler: Callable):
    """Handles SIGNALS temporarily. Does nothing outside the main thread, where Python cannot."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()  # set by nohup
    before = {number: signal.signal(number, handler) for number in SIGNALS if number not in ignored}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextlib.contextmanager
def listening():
    """Yields a function that returns the pending signal, or None.

    The first signal is only recorded; a second Ctrl-C raises KeyboardInterrupt. Outside the main thread, where Python
    cannot handle signals, the function always returns None.
    """
    noted: list[int] = []

    def note(number, frame):
        if noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        noted.append(number)

    with _handler(note):
        yield lambda: noted[0] if noted else None
