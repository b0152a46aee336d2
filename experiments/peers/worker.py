"""Measures one implementation of one workload, in a process of its own that answers requests of the benchmark.

Libraries cannot disturb each other, and the peak memory is theirs alone. Between requests the process computes nothing.

    {"implementation", "workload", "threads", "config"}  first; -> {"nats", "compile_s", "versions"} or {"absent"}
    {"measure": seconds}  -> {"units", "seconds"}: how long about that much work took
    {"finish": true}      -> {"peak_rss_mb"}, and ends
"""

import importlib
import math
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lm.errors import first_line
from lm.machine.processes import to_parent


class Implementation(NamedTuple):
    """module: in experiments.peers; package: must be installed; arguments: extra arguments of the module's build()"""

    module: str
    package: str
    arguments: dict = {}  # noqa: RUF012 (never changed)


# Names in config.peers and in the record.
IMPLEMENTATIONS = {
    "lm": Implementation("ours", "jax"),
    "floor": Implementation("floor", "jax"),
    "flax": Implementation("flax_peer", "flax"),
    "torch": Implementation("torch_peer", "torch"),
    "torch_compile": Implementation("torch_peer", "torch", {"compiled": True}),
    "keras": Implementation("keras_peer", "keras"),
    "haiku": Implementation("haiku_peer", "haiku"),
}

# Units of work before an implementation is measured. The first compiles; the mean nats of all are compared between
# implementations, and three training steps also compare gradient, clipping and update.
FIRST_UNITS = {"train": 3, "evaluate": 2, "sample": 2}


def main() -> int:
    """Serves the parent until it finishes or closes the pipe."""
    parent, program = to_parent(), None
    while (request := parent.receive()) is not None:
        if "implementation" in request:
            try:
                program, message = start(request)
            except Exception as error:  # any error of a library: the parent lists it as the reason
                traceback.print_exc()
                message = {"absent": first_line(error)}
            parent.send(message)
        elif "measure" in request:
            assert program is not None  # measured once it has been started
            units = max(1, round(request["measure"] / program.unit_seconds))
            parent.send({"units": units, "seconds": seconds(program.run, units)})
        else:
            parent.send({"peak_rss_mb": peak_rss_mb()})
            break
    return 0


class Started(NamedTuple):
    """A program's run(), and the seconds for one unit of its work."""

    run: Callable[[int], float]
    unit_seconds: float


def start(request: dict) -> tuple[Started, dict]:
    """Builds and compiles a program. Returns it and the reply. Raises any error of the library."""
    from experiments.peers import workload as workload_lib

    use_threads(request["threads"])
    implementation = IMPLEMENTATIONS[request["implementation"]]
    workload = workload_lib.Workload(**request["workload"])
    module = importlib.import_module(f"experiments.peers.{implementation.module}")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(request["threads"])
    arguments = dict(implementation.arguments)
    if request["implementation"] == "lm":
        from ml_collections import ConfigDict

        arguments["config"] = ConfigDict(request["config"])
    program = module.build(workload, **arguments)
    times, nats = [], []
    for _ in range(FIRST_UNITS[workload.kind]):
        began = time.perf_counter()
        nats.append(program.run(1))
        times.append(time.perf_counter() - began)
    if program.first_nats is not None:
        nats = [program.first_nats()]
    unit = min(times[1:])
    versions = getattr(module, "VERSIONS", {})
    nats = [None if math.isnan(x) else x for x in nats]
    message = {"nats": nats, "compile_s": max(0.0, times[0] - unit), "versions": versions}
    if request["implementation"] == "lm":
        message["provenance"] = module.describe()
    return Started(program.run, unit), message


def environment(scratch: str, threads: int) -> dict[str, str]:
    """Variables for a worker: no earlier compilation is reused, and GPU memory is allocated as it is needed."""
    return {
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "TORCHINDUCTOR_CACHE_DIR": scratch,
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # no helper processes
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "OMP_NUM_THREADS": str(threads),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


def use_threads(threads: int):
    """Confines the process to `threads` processors: JAX has no other limit on its threads on a CPU."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def seconds(run, units: int) -> float:
    began = time.perf_counter()
    run(units)
    return time.perf_counter() - began


def peak_rss_mb() -> float:
    """Peak resident memory of this process, in 10^6 bytes.

    On Linux, getrusage's ru_maxrss is inherited from the parent that started the process; VmHWM is not.
    """
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
