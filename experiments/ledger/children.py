"""Processes that train for this one. None outlives it, and a signal reaches them through it alone.

They are in process groups of their own, so that a Ctrl-C at the terminal is not theirs too: the first SIGINT lets a
run save and end, the second ends it at once (lm/machine/signals.py). Where this process is killed, Linux sends them
SIGTERM, upon which they save as well; elsewhere they go on to their end.

    python -m experiments.ledger.children PARENT COMMAND ...    becomes COMMAND, tied to the process PARENT
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Children:
    """The processes that run now; `call` may be used by several threads at a time."""

    def __init__(self):
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen] = set()
        self.interrupted = False

    def call(self, command: list[str], output=None, left: float | None = None) -> int | None:
        """Runs a Python command, a list without the interpreter, and returns its exit status.

        output: an open file for standard output and error; None: this process's own
        left: seconds, after which it is interrupted
        None where it was interrupted for want of time, or not begun because `interrupt` had been called.
        """
        tied = [sys.executable, "-m", "experiments.ledger.children", str(os.getpid()), sys.executable, *command]
        with self._lock:
            if self.interrupted:
                return None
            process = subprocess.Popen(
                tied, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0
            )
            self._running.add(process)
        try:
            return process.wait(left)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            process.wait()
            return None
        finally:
            with self._lock:
                self._running.discard(process)

    def interrupt(self):
        """Asks all to save and end, and begins no more; called again, it ends them at once."""
        with self._lock:
            for process in self._running:
                process.send_signal(signal.SIGINT)
            self.interrupted = True


def become(parent: int, command: list[str]):
    """Replaces this process by the command, which ends when the process `parent` does. Returns only where that has."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == parent:  # it may have ended before that call
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # what a shell runs in the background ignores it, and its children
        os.execv(command[0], command)


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
