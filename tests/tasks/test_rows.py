"""The softmax exercise of CS224d, to the digit."""

import json

import jax
import numpy as np
import pytest

from configs.cs224d.softmax import BATCH, get_config
from experiments.train import load_setup
from lm.errors import UserError
from lm.training.loop import Trainer, train
from lm.training.recorder import Recorder


def losses_in_float64():
    """Mean loss per batch in each of 50 epochs, with the gradient written by hand."""
    x, w, b, means = np.random.RandomState(1234).rand(16, 64, 100), np.zeros((100, 5)), np.zeros(5), []
    for _ in range(50):
        losses = []
        for batch in x:
            p = np.exp(batch @ w + b)
            p /= p.sum(axis=1, keepdims=True)
            losses.append(-np.log(p[:, 1]).sum())
            d = p - np.eye(5)[1]
            w, b = w - 1e-4 * batch.T @ d, b - 1e-4 * d.sum(axis=0)
        means.append(np.mean(losses))
    return means


def test_the_softmax_exercise_gives_its_numbers_in_one_go_and_in_two(tmp_path):
    expected = losses_in_float64()
    assert [expected[epoch] for epoch in (0, 1, 9, 49)] == pytest.approx([59.2055, 20.3375, 2.34995, 0.41478], abs=5e-5)
    config, short = get_config(), get_config()
    short.train.epochs = 20
    whole = train(load_setup(config, None), tmp_path / "whole")
    train(load_setup(short, None), tmp_path / "parts")
    assert train(load_setup(config, None), tmp_path / "parts")["results"] == whole["results"]
    states = [Trainer(Recorder(load_setup(config, None), tmp_path / name)).state for name in ("whole", "parts")]
    jax.tree.map(np.testing.assert_array_equal, *(state.parameters for state in states))
    for name in ("whole", "parts"):
        rows = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        losses = {row["epoch"]: BATCH * row["epoch_loss"] for row in rows if "epoch_loss" in row}
        assert [losses[epoch + 1] for epoch in range(50)] == pytest.approx(expected, rel=3e-6)
        assert losses[50] * 16 / 15 == pytest.approx(0.44243, abs=5e-6)


def test_a_task_of_vectors_needs_vectors():
    config = get_config()
    config.data.corpus = "synthetic"
    with pytest.raises(UserError, match=r"config\.task=vectors needs vectors"):
        load_setup(config, None)
    config = get_config()
    config.task = "language_modelling"
    with pytest.raises(UserError):
        load_setup(config, None)
    config = get_config()
    config.data.batch_size = 1025
    with pytest.raises(UserError, match="at most 1024"):
        load_setup(config, None)
