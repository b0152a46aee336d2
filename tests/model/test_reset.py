"""config.data.reset: each sentence is read from the zero state, in training, scoring, sampling and inspection."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lm
from lm.cells.kinds import ParallelCell, zero_carry
from lm.cells.recurrence import RecurrentNoise, prepare_loop, run_cell, scan_plain, split_noise
from lm.cells.table import make_cell
from lm.errors import UserError
from lm.scoring import inspection
from lm.scoring.protocols import exact_nats
from lm.training.loop import train
from lm.training.setup import make_setup
from tests.helpers import tiny
from tests.helpers.few import LSTM_FIRST

SPACE = 0  # tiny.SYMBOLS[0] ends the sentences
T, B, H = 9, 3, 4


@pytest.mark.parametrize("name", LSTM_FIRST)
def test_every_cell_runs_each_part_as_if_alone_with_the_gradient_of_autodiff(name):
    config = tiny.config(model__cell=name, model__projection=4)
    cell = make_cell(config.model)
    keys = iter(jax.random.split(jax.random.key(0), 40))
    shapes = cell.parameters(H, H)
    parameters = {name: 0.5 * jax.random.normal(next(keys), shape) for name, (_, shape) in shapes.items()}
    x = jax.random.normal(next(keys), (T, B, H))
    starts = np.array([[0, 4, 7], [2, 5, 9], [9, 9, 9]])  # of each row, after the first step
    reset = np.ones((T, B, 1), np.float32)
    for row, steps in enumerate(starts):
        reset[[step for step in steps if step < T], row] = 0
    _, h = run_cell(cell, parameters, x, zero_carry(cell, B, H), RecurrentNoise(reset=jnp.asarray(reset)))
    for row, steps in enumerate(starts):
        bounds = sorted({0, *(step for step in steps if step < T), T})
        for begin, end in itertools.pairwise(bounds):
            alone = run_cell(cell, parameters, x[begin:end, row : row + 1], zero_carry(cell, 1, H))[1]
            np.testing.assert_allclose(h[begin:end, row], alone[:, 0], rtol=2e-5, atol=2e-6)

    def fast(parameters, x):
        return jnp.sum(run_cell(cell, parameters, x, zero_carry(cell, B, H), noise)[1] ** 2)

    def plain(parameters, x):
        fixed, timed = split_noise(noise, T)
        step, z, weights, vectors = prepare_loop(cell, parameters, x, zero_carry(cell, B, H))
        return jnp.sum(scan_plain(step, z, weights, zero_carry(cell, B, H), vectors, fixed, timed)[1] ** 2)

    noise = RecurrentNoise(reset=jnp.asarray(reset))
    if not isinstance(cell, ParallelCell):  # those have no loop; their gradient is autodiff's
        ours, theirs = (jax.grad(loss, argnums=(0, 1))(parameters, x) for loss in (fast, plain))
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_scores_are_those_of_the_sentences_each_read_alone(tmp_path):
    """Each sentence begins with the symbol that ended the one before."""
    config = tiny.config(data__reset=" ", model__hidden=(3, 4))
    train(make_setup(config, tiny.corpus()), tmp_path)
    run = lm.open_run(tmp_path)
    assert run.model.reset == SPACE
    tokens = tiny.corpus().splits["valid"]
    nats = exact_nats(run.model, run.parameters, tokens)
    starts = [0, *(i for i in np.flatnonzero(tokens == SPACE) if 0 < i < len(tokens) - 1), len(tokens) - 1]
    never = run.model.clone(reset=None)
    alone = [exact_nats(never, run.parameters, tokens[begin : end + 1]) for begin, end in itertools.pairwise(starts)]
    np.testing.assert_allclose(nats, np.concatenate(alone), rtol=1e-5)
    assert not np.allclose(nats, exact_nats(never, run.parameters, tokens), rtol=1e-3)
    trace = inspection.trace(run.model, run.parameters, tokens)
    np.testing.assert_allclose(trace.log_probs[np.arange(len(nats)), tokens[1:]], -nats, rtol=1e-5)
    first = tokens[int(starts[1])]
    gates = inspection.trace(never, run.parameters, np.array([first, first], np.uint8)).gates
    for ours, expected in zip(trace.gates, gates, strict=True):
        np.testing.assert_allclose(ours["i"][starts[1]], expected["i"][0], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__reset": "z"}, "config.data.reset='z' is not a symbol of the corpus"),
        (
            {"data__reset": " ", "model__initial_carry": "first_unit_one"},
            "config.data.reset needs config.model.initial_carry=zeros, not first_unit_one",
        ),
    ],
)
def test_a_reset_that_does_not_fit_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        make_setup(tiny.config(**changes), tiny.corpus())


@pytest.mark.slow
def test_training_with_a_reset_differs_and_resumes_bit_for_bit(tmp_path):
    def parameters(name, **changes):
        train(make_setup(tiny.config(**changes), tiny.corpus()), tmp_path / name)
        return jax.tree.leaves(lm.open_run(tmp_path / name).parameters)

    straight = parameters("straight", data__reset=" ")
    parameters("resumed", data__reset=" ", train__steps=5)
    resumed = parameters("resumed", data__reset=" ")
    for a, b in zip(straight, resumed, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(straight, parameters("never"), strict=True))
