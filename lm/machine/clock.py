"""Durations: the age of this process, and their form in print."""

import time

import psutil


def process_seconds() -> float:
    """Seconds since this process started; up to 1 s more on Linux, which knows its boot time in whole seconds."""
    return time.time() - psutil.Process().create_time()


def h_mm_ss(seconds: float) -> str:
    """A duration as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
