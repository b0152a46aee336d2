"""The parent's side of experiments/peers/worker.py: a process per implementation, one request at a time."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class WorkerDied(Exception):
    """A worker ended without an answer, as for want of memory."""


class Worker:
    """A process that waits for requests. Its standard error goes to the file `log`, open for writing."""

    def __init__(self, log, threads: int):
        self.scratch = tempfile.TemporaryDirectory(prefix="lm-benchmark-")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "experiments.peers.worker"],
            cwd=ROOT,
            env=environment(self.scratch.name, threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )

    def ask(self, request: dict) -> dict:
        """Raises WorkerDied."""
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise WorkerDied(f"its process ended with status {self.process.wait()}")
        return json.loads(answer)

    def close(self):
        """Ends the process, whatever it is doing."""
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):  # of a request that it never read
            self.process.stdin.close()
        self.process.stdout.close()
        self.scratch.cleanup()


def environment(scratch: str, threads: int) -> dict[str, str]:
    """Nothing compiled earlier is found again, and a GPU's memory is taken as it is needed, by all in turn."""
    return os.environ | {
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "TORCHINDUCTOR_CACHE_DIR": scratch,
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # no helper processes
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "OMP_NUM_THREADS": str(threads),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
