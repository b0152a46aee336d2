"""100,000 steps, with all that comes between them: memory stays flat after the first tenth, open files are constant.

    python -m pytest tests/soak/soak_long.py         # one to three minutes

The outcome is recorded in docs/results/soak_long.json.
"""

import gc
import os
import statistics
import time
from pathlib import Path

import jax
import pytest

from lm.runs.files import write_json
from lm.runs.provenance import revision
from lm.training.loop import train
from lm.training.setup import make_setup
from tests.helpers import tiny

RECORD = Path(__file__).resolve().parents[2] / "docs" / "results" / "soak_long.json"
STEPS = 100_000
GROWTH = 0.02  # most that memory may grow by, from the second tenth of the run to any later moment

SETTINGS = {
    "model__input": "embedding",
    "model__embedding_size": 4,
    "model__hidden": (8, 8),
    "keep_prob__between": 0.8,
    "data__batching": "rows",
    "optim__name": "adam",
    "optim__learning_rate": 1e-3,
    "optim__schedule": "cosine",
    "train__steps": STEPS,
    "train__steps_per_dispatch": 100,
    "train__report_every": 100,
    "train__evaluate_every": 500,
    "train__sample_every": 2_000,
    "checkpoint__every_steps": 1_000,
    "checkpoint__best": "keep",
}


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")
def test_memory_is_flat_and_open_files_are_constant(tmp_path):
    seen = []  # (step, bytes, open files, live arrays), after each validation check

    def look(step, perplexity):
        del perplexity
        gc.collect()
        seen.append((step, resident_bytes(), open_files(), len(jax.live_arrays())))

    began = time.monotonic()
    summary = train(make_setup(tiny.config(**SETTINGS), tiny.corpus(train=20_003, valid=203)), tmp_path, observe=look)
    assert summary["train"]["steps"] == STEPS

    def median(column, first, end):
        return statistics.median(row[column] for row in seen if first * STEPS <= row[0] < end * STEPS)

    # A save that is being written holds a few files open: medians and the fewest show what stays.
    early, most = median(1, 0.1, 0.2), max(row[1] for row in seen if row[0] >= 0.2 * STEPS)
    files = {(a, b): min(row[2] for row in seen if a * STEPS <= row[0] < b * STEPS) for a, b in [(0.1, 0.2), (0.9, 1)]}
    arrays = median(3, 0.1, 0.2), median(3, 0.9, 1.0)
    row = {
        "steps": STEPS,
        "seconds": round(time.monotonic() - began),
        "looks": len(seen),
        "resident_MB": {"second tenth": early / 1e6, "most after it": most / 1e6, "end": seen[-1][1] / 1e6},
        "growth": most / early - 1,
        "open_files": list(files.values()),
        "live_arrays": arrays,
        "git": revision(),
        "curve_MB": [round(r[1] / 1e6, 1) for r in seen[:: len(seen) // 20]],
    }
    print(row)
    write_json(RECORD, row)
    assert most / early - 1 < GROWTH
    assert len(set(files.values())) == 1
    assert arrays[0] == arrays[1]
