"""Ctrl-C and SIGTERM end whatever runs with a line that says how to go on; training finishes its step and saves first.

`ending` is around a whole command; while a run trains, `listening` takes its place, and `raising` where there are
children or scratch files to take along.
"""

import contextlib
import os
import signal
import threading

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A run that was asked to end has saved and ends. signal: which one asked."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.signal = number


def how_to_go_on(what: str) -> str:
    """The line that ends an interrupted command."""
    return f"{what}: the same command goes on from the last checkpoint"


def status_of(number: int | None) -> int:
    """The exit status after a signal: 0 after SIGTERM, which asks for an end; 130 after Ctrl-C, as shells have it."""
    return 0 if number == signal.SIGTERM else 130


@contextlib.contextmanager
def ending():
    """SIGINT and SIGTERM end the process at once, with the line: for whatever leaves no file half written.

    No exception: it would come up wherever the main thread is, and an import of native code, or a callback of the
    garbage collector, swallows it or crashes.
    """

    def end(number, frame):
        os.write(2, (how_to_go_on("interrupted") + "\n").encode())
        os._exit(status_of(number))

    with _handlers(dict.fromkeys(SIGNALS, end)):
        yield


@contextlib.contextmanager
def raising():
    """SIGINT and SIGTERM become a KeyboardInterrupt, where something has to be taken down first: children, scratch."""

    def interrupt(number, frame):
        raise Interrupted(number, "interrupted")

    with _handlers(dict.fromkeys(SIGNALS, interrupt)):
        yield


@contextlib.contextmanager
def _handlers(handlers: dict):
    """Puts handlers in place for a while; in other threads than the main one, where Python knows none, nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def listening():
    """Gives a function that returns the signal which has come meanwhile, or None.

    The first signal is only noted; a second Ctrl-C ends the process at once, as ever. Elsewhere than in the main
    thread, where Python knows no signals, none is ever noted.
    """
    noted: list[int] = []

    def note(number, frame):
        if noted and number == signal.SIGINT:
            raise KeyboardInterrupt
        noted.append(number)

    with _handlers(dict.fromkeys(SIGNALS, note)):
        yield lambda: noted[0] if noted else None
