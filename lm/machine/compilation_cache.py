"""Caches compiled programs on disk, so that each is compiled once per machine."""

import hashlib
import os
import platform
from pathlib import Path
from typing import Any

PROJECT = "recurrent-lm"  # names the directory in the user's cache


def use_compilation_cache() -> None:
    """Caches compiled programs in the user's cache directory if it is writable. JAX_COMPILATION_CACHE_DIR sets another
    directory, JAX_ENABLE_COMPILATION_CACHE=false disables the cache."""
    import jax  # here, so that command-line errors are reported without waiting for this import

    config: Any = jax.config  # type checkers do not know its options
    if config.jax_compilation_cache_dir is not None:
        return
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        cache = home / PROJECT / "jax" / _processor()
        cache.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        return
    if os.access(cache, os.W_OK | os.X_OK):
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def is_used() -> bool:
    """Whether the next process can reuse the programs compiled by this one."""
    import jax

    config: Any = jax.config
    return bool(config.jax_enable_compilation_cache and config.jax_compilation_cache_dir)


def _processor() -> str:
    """A name for this processor's instruction set: a program compiled for one can fail on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        abilities = [line for line in lines if line.startswith(("flags", "Features"))][:1]
    except OSError:
        abilities = []
    digest = hashlib.sha256("".join(abilities).encode()).hexdigest()
    return f"{platform.machine()}-{digest[:8]}"
