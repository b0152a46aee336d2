"""The models under docs/models: they open, and they score what their run scored and what the ledger has on record."""

import json
import os
from pathlib import Path

import pytest

import lm
from experiments.ledger.records import RECORDS, RESULTS
from lm.data.corpora import load
from lm.scoring.protocols import evaluate

MODELS = sorted((Path(__file__).resolve().parents[1] / "docs" / "models").glob("text8_*"))


def test_there_is_one_for_each_text8_claim_and_they_are_small():
    assert [path.name[6:] for path in MODELS] == ["bigram", "bigram_dropout", "embedding", "lstm", "lstm_fused"]
    assert sum(file.stat().st_size for path in MODELS for file in path.iterdir()) < 3_000_000


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.name)
def test_it_is_better_than_chance_without_any_corpus(path):
    """English in text8's alphabet; uniform guessing takes 4.75 bits."""
    run = lm.open_run(path)
    nats = run.nats("the history of the world began with the first of the great cities")
    assert nats.mean() / 0.6931 < 2.6
    assert len(run.sample(number=1, length=20)[0]) >= 20


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.name)
def test_it_scores_as_its_run_did_and_as_the_record_says(path):
    data_dir = os.environ.get("LM_DATA_DIR")
    if not data_dir:
        pytest.skip("LM_DATA_DIR is not set")
    run = lm.open_run(path)
    corpus = load(run.config.data, data_dir, ("valid",))
    stored = json.loads((path / "config.json").read_text())["results"]
    variant = run.config.name.partition("/")[2].replace(":", "_")
    [record] = [
        json.loads(file.read_text()) for file in (RESULTS / RECORDS).glob(f"text8_{variant}.text8_prefix.seed0.json")
    ]
    rows = {(row["protocol"], row["split"]): row for row in record["results"] if row["which"] == "final"}
    assert len(stored) == len(rows)
    for row in stored:
        tokens = corpus.splits[row["split"]]
        score = evaluate(row["protocol"], run.model, run.parameters, tokens, run.config.evaluation)
        assert score.targets == row["targets"]
        assert score.nats == pytest.approx(row["nats"], rel=1e-5)
        # Another machine rounds otherwise, and 7,000 steps amplify it: within the spread of three seeds.
        assert score.perplexity == pytest.approx(rows[row["protocol"], row["split"]]["perplexity"], rel=0.06)
