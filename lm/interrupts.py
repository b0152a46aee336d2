"""Ctrl-C and SIGTERM: a run finishes what it computes, saves, and says how to go on."""

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
