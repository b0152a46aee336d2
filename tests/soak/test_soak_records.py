"""The last records of `make soak` hold the numbers that docs/trust.md states."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"


def load(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def test_runs_that_were_killed_ended_as_others():
    runs = load("soak_kills")
    assert runs.keys() == {"lstm", "nt_asgd", "lanes"}
    for run in runs.values():
        assert run["kills"] >= 50
        assert sum(run["kills_by_phase"].values()) == run["kills"]
        assert run["different"] == []
        assert all(each["uninterrupted"] == each["killed"] for each in run["sha256"].values())
    phases = set().union(*(run["kills_by_phase"] for run in runs.values()))
    assert phases >= {"training", "evaluating", "sampling", "compiling", "restoring", "training and saving"}


def test_memory_and_open_files_stayed_flat():
    run = load("soak_long")
    assert run["steps"] >= 100_000
    assert run["growth"] < 0.02
    assert len(set(run["open_files"])) == 1


def test_mutated_files_were_opened_or_refused():
    soak = load("soak_fuzz")
    assert soak["tried"] == sum(row["tried"] for row in soak["targets"].values()) >= 10_000
    assert all(row["opened"] + row["refused"] == row["tried"] for row in soak["targets"].values())


def test_estimates_were_within_a_fifth():
    runs = load("soak_preflight")
    assert runs.keys() == {"lstm_fused", "bigram", "gru", "correct"}
    for run in runs.values():
        assert run["predicted_s"] == pytest.approx(run["wall_s"], rel=0.2)
        assert run["predicted_peak_MB"] == pytest.approx(run["peak_MB"], rel=0.2)
        assert run["seconds_ratio"] == pytest.approx(run["predicted_s"] / run["wall_s"], abs=0.02)
        assert run["peak_ratio"] == pytest.approx(run["predicted_peak_MB"] / run["peak_MB"], abs=0.01)
        assert len(run["git"]["revision"]) == 40
        assert run["cpu"]


def test_bad_input_was_tried_in_hundreds_and_each_refused_or_trained():
    soak = load("soak_bad_input")
    assert soak["tried"] == soak["one_at_a_time"] + soak["drawn"] == soak["trained"] + soak["refused"]
    assert soak["refused"] >= 500
    assert len(soak["messages"]) == soak["kinds_of_message"]
    assert all(message.startswith("error: ") and "\n" not in message for message in soak["messages"])


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "soak").glob("soak_*.py")), ids=lambda path: path.stem)
def test_every_record_will_say_of_which_revision_it_is(path):
    assert "revision()" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "number"),
    [
        (r"([\d,]+) SIGKILLs", lambda: sum(run["kills"] for run in load("soak_kills").values())),
        (r"([\d,]+) mutated files", lambda: load("soak_fuzz")["tried"]),
        (r"([\d,]+) bad\s+inputs", lambda: load("soak_bad_input")["refused"]),
        (r"([\d,]+) steps in a row", lambda: load("soak_long")["steps"]),
    ],
)
def test_the_page_on_trust_has_the_numbers(words, number):
    (found,) = re.findall(words, (ROOT / "docs" / "trust.md").read_text(encoding="utf-8"))
    assert int(found.replace(",", "")) == number()


def test_sweeps_that_were_killed_ended_as_an_uninterrupted_one():
    soak = load("soak_sweep")
    assert re.fullmatch("[0-9a-f]{40}", soak["git"]["revision"])
    assert not soak["git"]["dirty"], "nobody can check out what was run"
    assert soak["trials"] >= 8
    assert soak["killed"].keys() == {"group", "supervisor"}
    for run in soak["killed"].values():
        assert run["kills"] == 3
        assert run["resumed"] >= 1
        assert run["different"] == []
        assert run["sha256"].keys() == {"trials", "metrics.jsonl", "summary.json", "samples.txt", "parameters"}
        assert all(each["uninterrupted"] == each["killed"] for each in run["sha256"].values())
