import subprocess
import sys

import pytest

from lm.machine.clock import h_mm_ss

SLEEP = "import time; time.sleep(0.5); from lm.machine.clock import process_seconds; print(process_seconds())"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0:00:00"), (59.6, "0:01:00"), (3 * 3600 + 62.4, "3:01:02"), (360_000, "100:00:00")]
)
def test_durations_are_printed_as_hours_minutes_and_seconds(seconds, shown):
    assert h_mm_ss(seconds) == shown


def test_the_age_of_a_process_includes_what_it_did_before_it_asked():
    seconds = subprocess.run([sys.executable, "-c", SLEEP], capture_output=True, text=True, check=True).stdout
    assert 0.5 < float(seconds) < 30
