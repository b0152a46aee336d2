"""Reads how much memory is free and how much this process holds, in bytes."""

from pathlib import Path

import jax
import psutil

from lm.errors import UserError

CONTROL_GROUP = Path("/sys/fs/cgroup")  # cgroup v2 of a Linux container; psutil ignores its limit


def free_bytes() -> int | None:
    """Free memory of the first accelerator, or else of this machine or container; None if unknown."""
    if jax.default_backend() != "cpu":
        stats = jax.local_devices()[0].memory_stats() or {}
        limit = stats.get("bytes_limit")
        return None if limit is None else limit - stats.get("bytes_in_use", 0)
    available = psutil.virtual_memory().available
    in_group = _control_group_free()
    return available if in_group is None else min(available, in_group)


def _control_group_free() -> int | None:
    """Bytes left below the container's limit; None if it has no limit."""
    try:
        limit, used = ((CONTROL_GROUP / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        return None if limit == "max" else max(0, int(limit) - int(used))
    except (OSError, ValueError):
        return None


def resident_bytes() -> int:
    """Resident memory of this process."""
    return psutil.Process().memory_info().rss


def reject_above_free(needed: int, qualifier: str, subject: str, keys: str):
    """Raises UserError if `needed` bytes exceed the free memory. keys: the config keys to lower"""
    free = free_bytes()
    if free is not None and needed > free:
        raise UserError(
            f"{subject} needs {qualifier} {megabytes(needed)} of memory and {megabytes(free)} are free: lower {keys}"
        )


def megabytes(size: int) -> str:
    return f"{round(size / 1e6):,} MB"
