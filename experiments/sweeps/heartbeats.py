"""Heartbeats of a shared study: tell the other machines that the trials of this one are alive.

Optuna's own thread for this runs only inside Study.optimize, which sweeps do not use.
"""

import threading
from collections.abc import Iterable

from experiments.sweeps.study import Sweep


def record_heartbeats(sweep: Sweep, numbers: Iterable[int]):
    """Records that trials are alive, if other machines share the study."""
    if sweep.place.shared:
        for number in numbers:
            sweep.storage.record_heartbeat(sweep.id_of(number))


class Heart:
    """Records the heartbeats of the watched trials from a thread, every `seconds`."""

    def __init__(self, sweep: Sweep, seconds: float):
        self.sweep, self.seconds = sweep, seconds
        self.numbers: list[int] = []
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def watch(self, numbers: list[int]):
        """Replaces the watched trials, and records their first heartbeats."""
        self.numbers = numbers
        record_heartbeats(self.sweep, numbers)

    def _run(self):
        while not self.stopped.wait(self.seconds):
            try:
                record_heartbeats(self.sweep, self.numbers)
            except Exception as error:  # whatever the database raises: the next heartbeat may succeed
                print(f"no heartbeat could be recorded: {type(error).__name__}: {error}", flush=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *unused):
        self.stopped.set()
        self.thread.join()
