"""Starts Python programs as child processes that end when this process ends.

    supervisor.run(["launch.py", "--workdir=..."])      runs a command and returns its exit status
    child = Child("experiments/peers/worker.py")        exchanges JSON messages with a program

Each child has its own process group, so Ctrl-C at the terminal reaches only the parent, which forwards it if needed.
A thread in the child watches the parent. When the parent ends, even by SIGKILL, a command gets SIGTERM: a training run
then saves and stops (lm/machine/signals.py). A `Child` gets SIGKILL.

    python -m lm.machine.processes PARENT SIGNAL SCRIPT ...    runs SCRIPT; gets SIGNAL when process PARENT ends
"""

import contextlib
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from lm.machine import signals

ROOT = Path(__file__).resolve().parents[2]


def start(command: Sequence[str], orphaned: signal.Signals, **options) -> subprocess.Popen:
    """Starts `python *command` as a child, in the project's root.

    orphaned: the signal that the child gets when this process ends; options: arguments of subprocess.Popen
    """
    watched = [sys.executable, "-m", "lm.machine.processes", str(os.getpid()), str(int(orphaned)), *command]
    return subprocess.Popen(watched, cwd=ROOT, process_group=0, **options)


class Supervisor:
    """Runs commands until `interrupt` is called. Safe to use from several threads."""

    def __init__(self):
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen] = set()
        self.interrupted = False

    def run(self, command: Sequence[str], output: IO | None = None, seconds: float | None = None) -> int | None:
        """Runs `python *command` and returns its exit status; None if it was interrupted after `seconds`, or not
        started because of `interrupt`. output: receives standard output and error; None: shared with this process
        """
        with self._lock:
            if self.interrupted:
                return None
            child = start(command, signal.SIGTERM, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            self._running.add(child)
        try:
            return child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGINT)
            child.wait()
            return None
        finally:
            with self._lock:
                self._running.discard(child)

    def interrupt(self):
        """Sends SIGINT to all commands and starts no more. Training saves and stops; a second call stops it at once."""
        with self._lock:
            for child in self._running:
                child.send_signal(signal.SIGINT)
            self.interrupted = True


class Channel:
    """Exchanges JSON messages, one per line. Arrays are received as tuples."""

    def __init__(self, reader: IO[str], writer: IO[str]):
        self._reader, self._writer = reader, writer

    def send(self, message) -> None:
        """Sends a message. Does nothing if the other side has ended."""
        with contextlib.suppress(BrokenPipeError):
            self._writer.write(json.dumps(message) + "\n")
            self._writer.flush()

    def receive(self):
        """Waits for the next message; None if the other side has ended."""
        line = self._reader.readline()
        return _tuples(json.loads(line)) if line else None

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # a message that was never read
            self._writer.close()
        self._reader.close()


class Child(Channel):
    """A child that exchanges messages with this process; the child calls `to_parent()` for its side."""

    def __init__(self, script: str, errors: IO | int | None = None, environment: Mapping[str, str] = {}):
        """errors: receives standard error, and all text printed after `to_parent`; environment: additional variables"""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors, "text": True}
        self.process = start([script], signal.SIGKILL, env=os.environ | environment, **pipes)
        assert self.process.stdout is not None
        assert self.process.stdin is not None
        super().__init__(self.process.stdout, self.process.stdin)

    def close(self) -> None:
        """Kills the child."""
        self.process.kill()
        self.process.wait()
        super().close()


def to_parent() -> Channel:
    """Opens the child's side of its channel. From now on, printed text goes to standard error."""
    writer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return Channel(sys.stdin, writer)


def stop(children: Iterable[Child]) -> None:
    """Sends SIGTERM to children, waits until they have ended, and closes them. Ctrl-C kills them at once."""
    try:
        with signals.listening() as pending:
            for child in children:
                child.process.terminate()
            while any(child.process.poll() is None for child in children) and pending() != signal.SIGINT:
                time.sleep(0.05)
    finally:
        for child in children:
            child.close()


def _tuples(value):
    """Converts the arrays of a JSON value to tuples."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _end_with(parent: int, orphaned: int) -> None:
    """Sends this process the signal `orphaned` when the process `parent` has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(parent).wait()
    os.kill(os.getpid(), orphaned)


if __name__ == "__main__":
    threading.Thread(target=_end_with, args=(int(sys.argv[1]), int(sys.argv[2])), daemon=True).start()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell makes background processes ignore SIGINT
    sys.argv = sys.argv[3:]
    runpy.run_path(sys.argv[0], run_name="__main__")
