"""How JAX uses the cores of a machine's CPU. XLA reads this once, so both come before anything is computed.

Accelerators are not touched by either.
"""

import os

import jax

_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"


def available() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_threads(threads: int):
    """Computes with so many threads; 0: as many as there are cores.

    The steps of a very small model cost more in handing work between threads than they gain from the second one.
    """
    if threads:
        os.environ["NPROC"] = str(threads)  # the size of XLA's pool of threads
    if threads == 1:
        _add_flag(_ONE_THREAD)


def one_device_per_core():
    """Makes JAX see every core as a device of one thread, for programs that divide their work over devices."""
    os.environ["NPROC"] = str(available())
    _add_flag(_ONE_THREAD)
    jax.config.update("jax_num_cpu_devices", available())


def _add_flag(flag: str):
    flags = os.environ.get("XLA_FLAGS", "")
    if flag not in flags.split():
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()
