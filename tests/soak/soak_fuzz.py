"""Tens of thousands of mutated files, and not one that its reader answers with anything but UserError.

    python -m pytest tests/soak/soak_fuzz.py        # some two minutes

The outcome is recorded in docs/results/soak_fuzz.json.
"""

import collections
import re
import time
from pathlib import Path

from lm.runs.files import write_json
from lm.runs.provenance import revision
from tests.helpers import fuzz

RECORD = Path(__file__).resolve().parents[2] / "docs" / "results" / "soak_fuzz.json"
TRIES = 3000  # of a target of weight 1
SEED = 0
SHOWN = 3


def test_mutated_files_are_opened_or_refused(tmp_path):
    began, rows = time.monotonic(), {}
    for name, make in fuzz.TARGETS.items():
        directory, counts, messages = tmp_path / name, collections.Counter(), {}
        directory.mkdir()
        target = make(directory)

        def tell(message: str, counts=counts, messages=messages):
            message = message.replace(f"{tmp_path}/", "")
            counts["refused" if message else "opened"] += 1
            if message:
                messages.setdefault(re.sub(r"\W*\d[\d.]*\W*|'.*?'", "#", message)[:60], message[:200])

        fuzz.try_often(target, round(TRIES * target.weight), tell, SEED)
        rows[name] = {
            "tried": counts.total(),
            **counts,
            "kinds_of_message": len(messages),
            "messages": list(messages.values())[:SHOWN],
        }
    tried = sum(row["tried"] for row in rows.values())
    soak_s = round(time.monotonic() - began)
    write_json(RECORD, {"tried": tried, "seed": SEED, "soak_s": soak_s, "git": revision(), "targets": rows})
    assert tried >= 10_000
