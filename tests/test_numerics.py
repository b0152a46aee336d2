"""Today's numbers are those on record, or NUMERICS says that they are others."""

import json

import pytest

from lm.runs.provenance import NUMERICS
from tests import numerics

KEPT = json.loads(numerics.PATH.read_text())


def test_the_record_is_of_this_version():
    assert KEPT["numerics"] == NUMERICS, "NUMERICS was raised: run python -m tests.numerics"
    assert KEPT["cases"].keys() == numerics.CASES.keys()


# One case is quick enough for `make test`.
CASES = [case if case == "nt_asgd" else pytest.param(case, marks=pytest.mark.slow) for case in numerics.CASES]


@pytest.mark.parametrize("case", CASES)
def test_numbers_are_as_they_were(case):
    wrong = numerics.differences(numerics.measure(case), KEPT["cases"][case])
    assert not wrong, (
        f"{case}: {', '.join(wrong)} changed. If that is meant, add 1 to NUMERICS in lm/runs/provenance.py and run "
        "python -m tests.numerics; every finished run is then of an older version"
    )


def test_the_cases_show_what_they_are_for():
    """Otherwise they would guard less than they say."""
    losses = [tuple(case["loss"]) for case in KEPT["cases"].values()]
    assert len(set(losses)) == len(losses)
    assert all(len(each) == numerics.STEPS for each in losses)
    assert all(len(case["valid_loss"]) >= 5 and len(set(case["samples"])) == 2 for case in KEPT["cases"].values())


@pytest.mark.parametrize("name", ["loss", "valid_loss", "samples"])
def test_a_change_beyond_rounding_is_seen(name):
    kept = KEPT["cases"]["nt_asgd"]
    last = kept[name][-1]
    found = kept | {name: [*kept[name][:-1], last + "a" if name == "samples" else last * (1 + 3e-4)]}
    assert numerics.differences(found, kept) == [name]
    assert numerics.differences(kept, kept) == []


def test_numbers_are_not_renewed_under_the_old_version(tmp_path, monkeypatch, capsys):
    case = "nt_asgd"
    monkeypatch.setattr(numerics, "CASES", {case: {}})
    monkeypatch.setattr(numerics, "PATH", tmp_path / "numerics.json")
    found = [KEPT["cases"][case]]
    monkeypatch.setattr(numerics, "measure", lambda case: found[-1])
    assert numerics.renew() == 0
    found.append(KEPT["cases"][case] | {"samples": ["other"]})
    before = numerics.PATH.read_text()
    assert numerics.renew() == 1
    assert "add 1 to NUMERICS" in capsys.readouterr().err
    assert numerics.PATH.read_text() == before
    monkeypatch.setattr(numerics, "NUMERICS", NUMERICS + 1)
    assert numerics.renew() == 0
    assert json.loads(numerics.PATH.read_text()) == {"numerics": NUMERICS + 1, "cases": {case: found[-1]}}
