"""Measures one implementation of one workload, in its own process that answers requests from the benchmark.

So libraries cannot disturb each other, and each gets its own peak memory. Between requests the process is idle.

    first: {"implementation", "workload", "threads", and "config" or "batches"}
                          -> {"nats", "compile_s", "versions"} or {"absent"}; this project adds "provenance", "batches"
    {"measure": seconds}  -> {"tokens", "seconds", "peak_rss_mb"}: the work done in about that time, the peak so far
"""

import importlib
import math
import os
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple

from experiments.peers.sequences import kept_lengths
from experiments.peers.workload import LABELLED, Program, Workload
from lm.errors import first_line
from lm.machine.processes import to_parent

TEXT = ("train", "evaluate", "sample")


class Implementation(NamedTuple):
    """module: in experiments.peers; package: must be installed; arguments: extra arguments of the module's build();
    kinds: the kinds of workloads that it can run"""

    module: str
    package: str
    arguments: dict = {}  # noqa: RUF012 (never changed)
    kinds: tuple[str, ...] = TEXT


# Names in config.peers and in the record.
IMPLEMENTATIONS = {
    "lm": Implementation("ours", "jax"),
    "floor": Implementation("floor", "jax"),
    "flax": Implementation("flax_peer", "flax"),
    "torch": Implementation("torch_peer", "torch", kinds=(*TEXT, "classify")),
    "torch_compile": Implementation("torch_peer", "torch", {"compiled": True}),
    "keras": Implementation("keras_peer", "keras", kinds=(*TEXT, "classify")),
    "haiku": Implementation("haiku_peer", "haiku"),
    # Batches of labelled sequences with similar lengths.
    "torch_sorted": Implementation("torch_peer", "torch", {"order": "sorted"}, kinds=("classify",)),
    "keras_sorted": Implementation("keras_peer", "keras", {"order": "sorted"}, kinds=("classify",)),
    # This project without buckets, and one sequence at a time.
    "lm_padded": Implementation("ours", "jax", {"buckets": 1}, kinds=("padding",)),
    "lm_single": Implementation("ours", "jax", {"batch": 1}, kinds=("padding",)),
}
VARIANTS = ("lm_padded", "lm_single")  # measured in every workload of their kinds
OWN = ("lm", "floor", *VARIANTS)

# Units of work before measuring; the first one compiles. Their mean nats are compared between implementations. Three
# training steps also check gradient, clipping and update.
FIRST_UNITS = {"train": 3, "evaluate": 2, "sample": 2, **dict.fromkeys(LABELLED, 3)}


def main() -> int:
    """Serves the parent until it closes the pipe."""
    parent, started = to_parent(), None
    while (request := parent.receive()) is not None:
        if "implementation" in request:
            try:
                started, message = start(request)
            except Exception as error:  # a library may raise anything; the parent prints the reason
                traceback.print_exc()
                message = {"absent": first_line(error)}
            parent.send(message)
        else:
            assert started is not None  # the benchmark starts it first
            parent.send(started.measure(request["measure"]))
    return 0


class Started:
    """A compiled program that has run `done` units of work. One unit takes about `unit_seconds`."""

    def __init__(self, workload: Workload, program: Program, unit_seconds: float, done: int):
        self.workload, self.program, self.unit_seconds, self.done = workload, program, unit_seconds, done

    def measure(self, wanted: float) -> dict:
        """Runs for about `wanted` seconds. Returns {"tokens", "seconds", "peak_rss_mb"}."""
        units = max(1, round(wanted / self.unit_seconds))
        began = time.perf_counter()
        self.program.run(units)
        took = time.perf_counter() - began
        tokens = unit_tokens(self.workload, self.program, self.done, units)
        self.done += units
        return {"tokens": tokens, "seconds": took, "peak_rss_mb": peak_rss_mb()}


def unit_tokens(workload: Workload, program: Program, first: int, count: int) -> int:
    """Number of tokens in `count` units of work from unit `first` on, without padding."""
    if program.batches is None:
        return workload.tokens * count
    lengths = kept_lengths(workload)
    return sum(int(lengths[program.batches(unit)].sum()) for unit in range(first, first + count))


def start(request: dict) -> tuple[Started, dict]:
    """Builds and compiles a program. Returns the program and the reply. Raises any exception of the library."""
    if hasattr(os, "sched_setaffinity"):  # limits the threads of every library
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: request["threads"]])
    name, fields = request["implementation"], request["workload"]
    workload = Workload(**fields | {"hidden": tuple(fields["hidden"])})
    implementation = IMPLEMENTATIONS[name]
    module = importlib.import_module(f"experiments.peers.{implementation.module}")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(request["threads"])
    arguments = dict(implementation.arguments)
    if implementation.module == "ours":
        from ml_collections import ConfigDict

        arguments["config"] = ConfigDict(request["config"])
    elif "batches" in request:
        arguments["first"] = request["batches"]
    program = module.build(workload, **arguments)
    units, times, nats = FIRST_UNITS[workload.kind], [], []
    for _ in range(units):
        began = time.perf_counter()
        nats.append(program.run(1))
        times.append(time.perf_counter() - began)
    if program.first_nats is not None:
        nats = [program.first_nats()]
    scaled = [took * workload.tokens / unit_tokens(workload, program, n, 1) for n, took in enumerate(times)]
    unit_seconds = min(scaled[1:])  # the first one compiled
    nats = [None if math.isnan(x) else x for x in nats]
    versions = getattr(module, "VERSIONS", {})
    message = {"nats": nats, "compile_s": max(0.0, times[0] - unit_seconds), "versions": versions}
    if name == "lm":
        message["provenance"] = module.describe()
        if program.batches is not None:
            message["batches"] = [program.batches(index).tolist() for index in range(units)]
    return Started(workload, program, unit_seconds, units), message


def environment(scratch: str, threads: int) -> dict[str, str]:
    """Environment variables for a worker: no cached compilation is reused, and GPU memory is allocated on demand."""
    return {
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "TORCHINDUCTOR_CACHE_DIR": scratch,
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # no helper processes
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "OMP_NUM_THREADS": str(threads),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


def peak_rss_mb() -> float:
    """Peak resident memory of this process, in 10^6 bytes. On Linux, getrusage's ru_maxrss is inherited from the parent
    that started the process; VmHWM is not."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        [line] = [line for line in lines if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024 / 1e6
    except (OSError, ValueError):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    sys.exit(main())
