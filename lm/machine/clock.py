"""Measures the age of this process, and formats durations."""

import time

import psutil


def process_seconds() -> float:
    """Seconds since this process started. Up to 1 s too many on Linux, which rounds its boot time down."""
    return time.time() - psutil.Process().create_time()


def h_mm_ss(seconds: float) -> str:
    """Formats a duration as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
