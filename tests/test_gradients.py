"""The gradients command: the book's printed digits, how far gradients reach in each cell, and the plot."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import gradients
from experiments.gradients import STEPS, demonstration, gradient_norms
from lm.cells.table import CELLS
from lm.errors import UserError
from lm.run import open_run
from lm.training.loop import train
from lm.training.setup import make_setup
from tests.helpers import tiny
from tests.helpers.few import LSTM_FIRST, few


def test_the_books_numbers_to_every_printed_digit():
    demo = demonstration()
    sigmoid, relu = demo["sigmoid"], demo["relu"]
    np.testing.assert_allclose(sigmoid["activations"][0], [0.93940638, 0.96852968], atol=5e-9)
    np.testing.assert_allclose(sigmoid["activations"][2], [0.99301385, 0.99302901], atol=5e-9)
    np.testing.assert_allclose(sigmoid["activations"][9], [0.99307291, 0.99307291], atol=5e-9)
    np.testing.assert_allclose(sigmoid["gradients"][0], [0.03439552, 0.03439552], atol=5e-9)
    np.testing.assert_allclose(sigmoid["gradients"][9], [1.45938177e-14, 2.16938983e-14], rtol=5e-9)
    np.testing.assert_allclose(relu["activations"][0], [23.71814585, 23.98025559], atol=5e-9)
    np.testing.assert_allclose(relu["activations"][9], [46583049.71437107, 46577890.60826711], atol=5e-9)
    np.testing.assert_array_equal(relu["gradients"], 5.0 ** np.arange(1, 11)[:, None] * np.ones(2))


@pytest.mark.parametrize("cell", few(["elman_tanh", "lstm", "gru"], "lstm"))
def test_the_last_step_has_gradient_one_per_unit_and_earlier_ones_follow(cell):
    """d(sum h_T) / d h_T is 1 for each of n units, so its norm is sqrt(n)."""
    norms = gradient_norms(cell, units=9, steps=6, key=jax.random.key(0))
    assert norms[-1] == pytest.approx(3.0, rel=1e-6)
    assert np.isfinite(norms).all()
    assert (norms > 0).all()


def test_a_gated_cell_reaches_further_than_a_saturating_one():
    reach = {cell: gradient_norms(cell, 32, 40, jax.random.key(1)) for cell in ("elman_sigmoid", "lstm")}
    assert reach["lstm"][0] > 100 * reach["elman_sigmoid"][0]


def test_the_reach_of_a_linear_chain_is_known(monkeypatch):
    """Without input, tanh(h W_h) stays at 0, where its slope is 1: the gradient of sum(h) n steps back is W_h^n 1."""
    monkeypatch.setattr(jax.random, "normal", lambda key, shape: jax.numpy.zeros(shape))
    key, units, steps = jax.random.key(2), 8, 5
    weights_key, _ = jax.random.split(key)
    shapes = gradients.CELLS["elman_tanh"].parameters(units, units)
    keys = dict(zip(shapes, jax.random.split(weights_key, len(shapes)), strict=True))
    w_h = np.asarray(gradients.initialiser(("glorot_uniform",))(keys["w_h"], shapes["w_h"][1]), np.float64)
    expected = [np.linalg.norm(np.linalg.matrix_power(w_h, n) @ np.ones(units)) for n in range(steps)[::-1]]
    np.testing.assert_allclose(gradient_norms("elman_tanh", units, steps, key), expected, rtol=1e-5)


@pytest.mark.slow
def test_the_command_writes_numbers_and_a_plot(tmp_path, capsys):
    gradients.run(tiny.config(model__hidden=(4,)), str(tmp_path))
    record = json.loads((tmp_path / "gradients.json").read_text())
    assert set(record["norms"]) == set(CELLS)
    assert all(len(values) == STEPS for values in record["norms"].values())
    assert record["demonstration"]["relu"]["gradients"][9] == [9765625.0, 9765625.0]
    assert (tmp_path / "gradients.png").read_bytes().startswith(b"\x89PNG")
    assert "1.45938177e-14" in capsys.readouterr().out


def test_a_workdir_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"directory .*file/deep cannot be made: Not a directory"):
        gradients.run(tiny.config(), tmp_path / "file" / "deep")


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "read"), [("elman_tanh", "h"), ("jordan_softmax", "p")])
def test_a_trained_run_is_drawn_too(cell, read, tmp_path, monkeypatch):
    """Each layer has its line; at the last step the gradient is that of one step, computed apart."""
    monkeypatch.setattr(gradients, "CELLS", {cell: CELLS[cell]})
    train(make_setup(tiny.config(model__cell=cell, model__hidden=(3, 4)), tiny.corpus()), tmp_path)
    norms = gradients.run(tiny.config(), tmp_path)["norms"]
    assert [name for name in norms if "trained" in name] == ["layer 0, trained", "layer 1, trained"]
    run = open_run(tmp_path)
    texts = run.sample(number=16, length=STEPS + 1, stop="")
    tokens = np.stack([run.encode(text)[: STEPS + 1] for text in texts], axis=1)
    before, _ = run.model.apply(
        {"params": run.parameters}, jnp.asarray(tokens[: STEPS - 1]), run.model.initial_carry(16)
    )

    def loss(carry):
        _, logits = run.model.apply({"params": run.parameters}, jnp.asarray(tokens[STEPS - 1 : STEPS]), carry)
        return optax.softmax_cross_entropy_with_integer_labels(logits[0], tokens[-1].astype(int)).sum()

    for index, layer in enumerate(jax.grad(loss)(before)):
        expected = np.linalg.norm(np.asarray(getattr(layer, read), np.float64), axis=-1).mean()
        assert expected > 0
        assert norms[f"layer {index}, trained"][-1] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("cell", LSTM_FIRST)
def test_every_cell_has_norms(cell):
    """At the last step: 1 per unit, or for a state that h only reads, what h takes from it."""
    norms = gradient_norms(cell, units=8, steps=12, key=jax.random.key(3))
    assert norms.shape == (12,)
    assert np.isfinite(norms).all()
    assert norms[-1] >= np.sqrt(8) * (1 - 1e-6)
    assert norms[0] > 0 or cell in ("lstm_1997", "jordan_softmax"), "its gradient is cut, or vanishes in float32"
