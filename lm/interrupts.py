"""Ctrl-C and SIGTERM end whatever runs with a line that says how to go on; training finishes its step and saves first.

Python makes an exception of SIGINT by itself; `raising_on_sigterm` does the same for SIGTERM, around a whole command.
While a run trains, `listening` takes the place of both.
"""

import contextlib
import signal
import threading

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A run that was asked to end has saved and ends. signal: which one asked."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.signal = number


@contextlib.contextmanager
def raising_on_sigterm():
    """Makes of a SIGTERM an Interrupted, wherever the main thread is; in other threads it changes nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number, frame):
        raise Interrupted(number, "interrupted")

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def listening():
    """Gives a function that returns the signal which has come meanwhile, or None.

    The first signal is only noted; a second Ctrl-C ends the process at once, as ever. Elsewhere than in the main
    thread, where Python knows no signals, none is ever noted.
    """
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def note(number, frame):
        if noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        noted.append(number)

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield lambda: noted[0] if noted else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
