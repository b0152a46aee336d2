"""A worker of a sweep as a process: how it begins and ends, and what its supervisor hears of that.

It ends with its supervisor, however that one ends: else it would train beside its successor. Nothing here imports JAX,
so that a worker watches its supervisor before it spends seconds on that.
"""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time

from lm.errors import UserError
from lm.machine import signals

GAVE_UP, ASKED = 2, 75  # statuses of a worker: it said why; it was asked to end, and has saved


class Worker:
    """The process that runs experiments.sweeps.worker.work(*arguments)."""

    def __init__(self, *arguments):
        context = multiprocessing.get_context("spawn")
        self.receiver, self.sender = context.Pipe(duplex=False)
        self.process = context.Process(target=begin, args=(self.sender, *arguments))

    def start(self):
        self.process.start()
        self.sender.close()  # the worker has its own end, and nobody else

    @property
    def pid(self) -> int | None:
        return self.process.pid

    @property
    def exitcode(self) -> int | None:
        """None while it runs; negative: the number of the signal that ended it."""
        return self.process.exitcode

    def reason(self) -> str:
        """Why it gave up, once it has."""
        try:
            return self.receiver.recv()
        except EOFError:
            return "a worker has ended without a reason; see what it printed"


def begin(sender, *arguments):
    """What the process runs."""
    threading.Thread(target=end_with_the_supervisor, daemon=True).start()
    # A terminal's Ctrl-C reaches all processes. While a trial is trained, lm/machine/signals.py listens for it and
    # saves; at other times there is nothing to save, and the supervisor ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from experiments.sweeps.worker import work

    try:
        work(*arguments)
    except KeyboardInterrupt:
        sys.exit(ASKED)
    except UserError as error:
        sender.send(str(error))
        sys.exit(GAVE_UP)


def end_with_the_supervisor():
    """Ends this process as soon as the one that started it is gone, even if it was before anybody watched."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def stop(workers: list[Worker]):
    """Asks workers to save what they train and to end, and waits for that. Ctrl-C meanwhile ends them at once."""
    alive = [worker.process for worker in workers if worker.process.is_alive()]
    try:
        with signals.listening() as asked:
            for process in alive:
                process.terminate()  # SIGTERM: as often as it comes, it never ends a run that is about to save
            while any(process.is_alive() for process in alive) and asked() != signal.SIGINT:
                time.sleep(0.05)
    finally:
        for process in alive:
            process.kill()
            process.join()
