"""Every text and value of tests/helpers/bad_input.py for every key, and what hypothesis draws of both: each
trains with finite losses or ends with one clear line.

    python -m pytest tests/soak/soak_bad_input.py        # some 20 minutes

The outcome is recorded in docs/results/soak_bad_input.json.
"""

import collections
import re
import time
from pathlib import Path

import hypothesis
import jax

from lm.runs.files import write_json
from lm.runs.provenance import revision
from tests.helpers.bad_input import SOUND, TEXTS, assert_sound, attempt, changes, pools, texts

RECORD = Path(__file__).resolve().parents[2] / "docs" / "results" / "soak_bad_input.json"
DRAWN = 400
SEED = 0
CLEAR_EVERY = 40  # attempts: thousands of compiled programs would exhaust what a process may map


def tables():
    """(text, changes) one thing at a time."""
    for text in TEXTS.values():
        for level in ("char", "word"):
            yield text, {"data.level": level}
    for key, values in pools().items():
        for value in values:
            yield SOUND, {key: value}


class Tally:
    """Tries and counts."""

    def __init__(self):
        self.statuses, self.messages = collections.Counter(), {}

    def __call__(self, text: bytes, changed: dict):
        if self.statuses.total() % CLEAR_EVERY == 0:
            jax.clear_caches()
        outcome = attempt(text, changed)
        assert_sound(outcome)
        self.statuses[outcome.status] += 1
        if outcome.status:
            line = re.sub(r"/\S*/", "", outcome.said.splitlines()[-1])  # where the attempt was made tells nothing
            self.messages.setdefault(re.sub(r"[-+.\w]*\d[-+.\w]*", "#", line), line)


def test_every_bad_input_ends_with_one_line():
    began, tally = time.monotonic(), Tally()
    for text, changed in tables():
        tally(text, changed)
    one_at_a_time = tally.statuses.total()

    @hypothesis.seed(SEED)
    @hypothesis.settings(
        max_examples=DRAWN, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(texts(), changes(1, 4))
    def several_at_once(text, changed):
        tally(text, changed)

    several_at_once()
    tried = tally.statuses.total()
    write_json(
        RECORD,
        {
            "tried": tried,
            "one_at_a_time": one_at_a_time,
            "drawn": tried - one_at_a_time,
            "seed": SEED,
            "trained": tally.statuses[0],
            "refused": tally.statuses[2],
            "kinds_of_message": len(tally.messages),
            "messages": sorted(tally.messages.values()),
            "soak_s": round(time.monotonic() - began),
            "git": revision(),
        },
    )
    assert tally.statuses[2] >= 500
