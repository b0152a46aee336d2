"""The ledger: which number of a record answers a target, and the verdict."""

import json

import pytest

from experiments.ledger import results_table
from experiments.ledger.claims import all_claims
from experiments.ledger.records import Row, ledger, load_records, make_record, measured
from experiments.pages.markdown import README, with_section


def record(**changes):
    result = dict(split="valid", protocol="exact", nats=200.0, targets=100, perplexity=7.389, which="final", step=9)
    return {
        "name": "some/config",
        "corpus": "ptb",
        "seed": 0,
        "results": [result, result | {"which": "best", "nats": 150.0, "perplexity": 4.4817}],
        "train": {"final_mean_loss": 1.58, "lowest_running_perplexity": 1.05},
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
    ("values", "tolerance", "verdict"),
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
def test_verdicts_follow_from_the_mean(values, tolerance, verdict):
    assert Row("some/config", "x", target(tolerance=tolerance), values, "ptb").verdict == verdict


def test_every_target_is_a_row_run_or_not():
    configs = [claim.config for claim in all_claims()]
    rows = ledger([], configs)
    assert len(rows) == sum(len(config.targets) for config in configs)
    assert {row.verdict for row in rows} == {"not run"}


def test_a_record_is_the_summary_and_the_curve(tmp_path):
    summary = {key: value for key, value in load_records()[0].items() if key not in ("curve", "test_scores")}
    (tmp_path / "summary.json").write_text(json.dumps(summary | {"name": "a/b"}))
    rows = [{"step": 0, "loss": 9.21034037, "other": 1}, {"step": 5, "loss": 2.0, "valid_perplexity": 3.5}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = make_record(str(tmp_path))
    assert {key: made[key] for key in summary} == summary | {"name": "a/b"}
    assert made["test_scores"] == 0
    assert made["curve"] == {"step": [0, 5], "loss": [9.21034, 2.0], "valid_perplexity": [None, 3.5]}


def test_the_readme_table_is_current():
    readme = README.read_text(encoding="utf-8")
    assert with_section(readme, "results", results_table.render()) == readme, "run `make results`"
