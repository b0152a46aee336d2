"""Which number of a record answers a target, the verdict on it, and the tables generated from the records."""

import json
import math
import shutil
from types import SimpleNamespace

import pytest
from ml_collections import ConfigDict

from configs.base import base, set_targets
from experiments import export, reproduce
from experiments.ledger.claims import Claim, all_claims
from experiments.ledger.contents import other_scores, target_rows
from experiments.ledger.records import load_records, make_record
from experiments.ledger.report import cells, summary_line
from experiments.ledger.results_page import final_rows, sections
from experiments.ledger.verdicts import measured, verdict
from experiments.pages.markdown import with_section
from lm.errors import UserError
from lm.runs.plain import plain
from lm.training.loop import train
from lm.training.setup import make_setup
from tests.helpers import tiny


def record(**changes):
    result = dict(split="valid", protocol="exact", nats=200.0, targets=100, perplexity=7.389, which="final", step=9)
    return {
        "name": "some/config",
        "corpus": "ptb",
        "seed": 0,
        "results": [result, result | {"which": "best", "nats": 150.0, "perplexity": 4.4817}],
        "train": {"final_mean_loss": 1.58, "lowest_running_perplexity": 1.05, "wall_time_s": 90.0},
        "curve": {
            "step": [0, 9, 19],
            "epoch": [0.1, 1.0, 2.0],
            "perplexity": [62.0, 9.0, 8.0],
            "epoch_perplexity": [None, 10.0, 8.5],
            "valid_perplexity": [None, 12.0, 11.0],
        },
    } | changes


def target(**changes):
    return dict(split="valid", protocol="exact", metric="perplexity", value=7.5, tolerance=0.0, at="final") | changes


def rows_without_records():
    return [row for claim in all_claims() for row in target_rows(claim, claim.config.data.corpus, [])]


@pytest.mark.parametrize(
    ("changes", "value"),
    [
        (dict(), 7.389),
        (dict(metric="loss"), 2.0),
        (dict(at="best"), 4.4817),
        (dict(protocol="batched"), None),
        (dict(split="test"), None),
        (dict(at="epoch 1"), 12.0),
        (dict(at="epoch 3"), None),
        (dict(split="train", protocol="train", metric="loss"), 1.58),
        (dict(split="train", protocol="train", metric="perplexity"), 8.5),
        (dict(split="train", protocol="train", metric="perplexity", at="step 0"), 62.0),
        (dict(split="train", protocol="train", metric="epoch_perplexity", at="epoch 1"), 10.0),
        (dict(split="train", protocol="train", metric="lowest_running_perplexity"), 1.05),
    ],
)
def test_each_target_finds_its_number(changes, value):
    assert measured(target(**changes), record()) == value


@pytest.mark.parametrize(
    ("values", "tolerance", "expected"),
    [
        ((), 0.0, "not run"),
        ((7.4, 7.6), 0.0, "reproduced"),
        ((7.55, 7.6), 0.0, "not distinguishable"),  # 7.575 -+ 12.7 x 0.0354 / 1.414: from 7.257
        ((7.4, 7.7), 0.0, "not distinguishable"),
        ((7.6, 7.601), 0.0, "worse"),  # from 7.594
        ((7.1, 7.101), 0.0, "better"),  # to 7.107, under 7.125
        ((7.1, 7.11), 0.0, "reproduced"),  # to 7.169
        ((7.55,), 0.1, "reproduced"),
        ((7.13,), 0.1, "reproduced"),
        ((7.12,), 0.1, "better"),
    ],
)
def test_verdicts_follow_from_the_mean(values, tolerance, expected):
    assert verdict(target(tolerance=tolerance), values) == expected


def test_every_target_is_a_row_run_or_not():
    rows = rows_without_records()
    assert len(rows) == sum(len(claim.config.targets) for claim in all_claims())
    assert {row["verdict"] for row in rows} == {"not run"}


def test_a_record_is_the_summary_and_the_curve(tmp_path):
    summary = {key: value for key, value in load_records()[0].items() if key not in ("curve", "test_scores")}
    (tmp_path / "summary.json").write_text(json.dumps(summary | {"name": "a/b"}))
    rows = [{"step": 0, "loss": 9.21034037, "other": 1}, {"step": 5, "loss": 2.0, "valid_perplexity": 3.5}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = make_record(str(tmp_path))
    assert {key: made[key] for key in summary} == summary | {"name": "a/b"}
    assert made["test_scores"] == 0
    assert made["curve"] == {"step": [0, 5], "loss": [9.21034, 2.0], "valid_perplexity": [None, 3.5]}


def test_a_finished_run_without_a_number_does_not_stop_the_others(tmp_path):
    """A loss that is not a number is the reason why that run is not on record."""
    content = {key: value for key, value in load_records()[0].items() if key not in ("curve", "test_scores")}
    directory = tmp_path / "runs" / "title.0123"
    directory.mkdir(parents=True)
    (directory / "metrics.jsonl").write_text('{"step": 0, "loss": 9.2}\n')
    (directory / "summary.json").write_text(json.dumps(content))
    assert reproduce.unrecordable(directory) == ""
    content["results"] = [content["results"][0] | {"nats": None}]
    (directory / "summary.json").write_text(json.dumps(content))
    assert "nats must be a finite number, not null; remove " in reproduce.unrecordable(directory)
    planned = SimpleNamespace(title="title", identity="0123", directory="title.0123")
    assert reproduce.record_of(tmp_path, planned) is None


def test_a_summary_of_another_run_is_refused(tmp_path):
    """Its numbers would pass for those of the model beside it."""
    for seed in (0, 1):
        train(make_setup(tiny.config(seed=seed), tiny.corpus()), tmp_path / str(seed))
    shutil.copy(tmp_path / "1" / "summary.json", tmp_path / "0")
    for use in (make_record, lambda workdir: export.run(tiny.config(), str(workdir))):
        with pytest.raises(UserError, match=r"summary.json does not match config.json beside it: one of"):
            use(tmp_path / "0")
    assert make_record(tmp_path / "1")["seed"] == 1


def test_a_seed_that_diverged_counts():
    """Its perplexity is null in the record: too large for a float."""
    curve = {
        "step": [0, 9, 19],
        "epoch": [0.1, 1.0, 2.0],
        "epoch_loss": [None, 3.0, 9e3],
        "epoch_perplexity": [None, 20.1, None],
        "valid_loss": [None, 8e3, 1e4],
        "valid_perplexity": [None, None, None],
    }
    diverged = record(seed=1, curve=curve)
    diverged["results"] = [diverged["results"][0] | {"nats": 1e6, "perplexity": None}]
    assert measured(target(), diverged) == math.inf
    assert measured(target(metric="loss"), diverged) == 1e4
    assert measured(target(at="epoch 1"), diverged) == math.inf
    assert measured(target(split="train", protocol="train"), diverged) == math.inf  # not 20.1, of an earlier epoch
    config = base()
    config.name = "some/config"
    set_targets(config, x=ConfigDict(target(kind="reported", where="line 1")))
    claim = Claim("some/config.py", config)
    (row,) = target_rows(claim, "ptb", [record(), diverged])
    assert (row["values"], row["verdict"]) == ([7.389, math.inf], "worse")
    shown = cells(plain(row))
    assert (shown["ours"], shown["95% interval"], shown["seeds"]) == ("infinite for 1 of 2", "", 2)
    (row,) = target_rows(claim, "ptb", [diverged])
    assert row["verdict"] == "worse"
    other = other_scores([record(), diverged], [])
    assert [score["values"] for score in other] == [[7.389, math.inf], [4.4817]]


def test_the_tables_of_readme_and_docs_are_current():
    found = sections()
    assert len(found) == 5
    for (path, name), content in found.items():
        text = path.read_text(encoding="utf-8")
        assert with_section(text, name, content) == text, f"{path.name}, {name}: run `make results`"


def test_a_config_has_one_final_number():
    rows = {row["config"]: row["target"] for row in final_rows(rows_without_records())}
    assert set(rows) == {claim.config.name for claim in all_claims() if claim.config.targets}
    assert rows["ptb/lstm2"] == "test"
    assert rows["text8/lstm_fused"] == "perplexity"
    assert rows["shakespeare/lstm:book"] == "best"


@pytest.mark.parametrize(
    ("value", "kind", "reported", "shown"),
    [
        (7.5, "reported", "7.5", "reproduced"),
        (7.5, "aim", "7.5 (aim)", "aim met"),
        (8.5, "aim", "8.5 (aim)", "aim met"),
        (6.5, "aim", "6.5 (aim)", "aim missed"),
        (6.5, "reported", "6.5", "worse"),
    ],
)
def test_an_aim_is_not_called_reported(value, kind, reported, shown):
    config = base()
    config.name = "some/config"
    set_targets(config, x=ConfigDict(target(value=value, kind=kind, where="line 1")))
    (row,) = target_rows(Claim("some/config.py", config), "ptb", [record()])
    assert (cells(row)["reported"], cells(row)["verdict"]) == (reported, shown)
    assert summary_line([row]).startswith("Aims: 1 (1 m" if kind == "aim" else "Reported numbers: 1 (1 ")


def test_of_accuracy_the_errors_are_compared():
    reported = target(metric="accuracy", value=0.868)
    assert verdict(reported, [0.87]) == "reproduced"
    assert verdict(reported, [0.86]) == "worse"
    assert verdict(reported, [0.88]) == "better"  # 12% of errors are more than 5% below 13.2%
    assert verdict(reported | {"tolerance": 0.01}, [0.86]) == "reproduced"
