"""Handles Ctrl-C, SIGTERM and SIGHUP, which a terminal that closes sends.

The command stops and prints how to resume; training finishes its step and saves first.
`ending` is for a whole command, `listening` for training, `raising` for code that must clean up children or files.
"""

import contextlib
import os
import signal
import threading

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A run that was asked to end has saved and ends. signal: the number of the signal."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.signal = number


def how_to_resume(what: str, resumes: bool = True) -> str:
    """The line that ends an interrupted command. resumes: whether it has checkpoints; any other starts again"""
    return f"{what}: run the same command again{' to resume from the last checkpoint' if resumes else ''}"


def status_of(number: int | None) -> int:
    """The exit status after a signal: 0 after SIGTERM, a request to end; 129 after SIGHUP and 130 after Ctrl-C, as in
    shells."""
    return {signal.SIGTERM: 0, signal.SIGHUP: 129}.get(number, 130)


@contextlib.contextmanager
def ending(resumes: bool = True):
    """The SIGNALS end the process at once with one line: for code that leaves no file half written.

    resumes: as `how_to_resume` says it
    Raises no exception, because an import of native code or a callback of the garbage collector would swallow it or
    crash.
    """

    def end(number, frame):
        os.write(2, (how_to_resume("interrupted", resumes) + "\n").encode())
        os._exit(status_of(number))

    with _handlers(dict.fromkeys(SIGNALS, end)):
        yield


@contextlib.contextmanager
def raising():
    """The SIGNALS raise KeyboardInterrupt: for code that must first clean up children or scratch files."""

    def interrupt(number, frame):
        raise Interrupted(number, "interrupted")

    with _handlers(dict.fromkeys(SIGNALS, interrupt)):
        yield


@contextlib.contextmanager
def _handlers(handlers: dict):
    """Installs handlers for a while. Does nothing outside the main thread, where Python handles no signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()  # by nohup
    before = {number: signal.signal(number, handler) for number, handler in handlers.items() if number not in ignored}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def listening():
    """Yields a function that returns the pending signal, or None.

    The first signal is only noted; a second Ctrl-C raises KeyboardInterrupt. Outside the main thread, where Python
    handles no signals, none is noted.
    """
    noted: list[int] = []

    def note(number, frame):
        if noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        noted.append(number)

    with _handlers(dict.fromkeys(SIGNALS, note)):
        yield lambda: noted[0] if noted else None
