"""Sets how JAX uses CPU cores. XLA reads these settings once, so set them before the first computation.

Accelerators are not affected.
"""

import os

import jax

_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false"


def available() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_threads(threads: int):
    """Limits XLA to `threads` threads; 0: one per core. One is faster than two for a very small model."""
    if threads:
        os.environ["NPROC"] = str(threads)  # size of XLA's thread pool
    if threads == 1:
        _add_flag(_ONE_THREAD)


def one_device_per_core():
    """Makes every core a JAX device with one thread, for data-parallel programs."""
    os.environ["NPROC"] = str(available())
    _add_flag(_ONE_THREAD)
    jax.config.update("jax_num_cpu_devices", available())


def _add_flag(flag: str):
    flags = os.environ.get("XLA_FLAGS", "")
    if flag not in flags.split():
        os.environ["XLA_FLAGS"] = f"{flags} {flag}".strip()
