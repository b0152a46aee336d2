"""Clipping, schedules and optimisers against NumPy; whole training steps against a float64 implementation."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.runs.workdir import OVER_THE_RUN
from lm.training.optim import AVERAGED, OPTIMISERS, SCHEDULES, clip_step, hyper_of, learning_rate, transformation
from lm.training.setup import make_setup
from lm.training.step import train_steps
from tests.helpers import references, tiny


def updates(config, gradients, parameters):
    """What the chain makes of each of a list of gradients in turn."""
    hyper, found = hyper_of(config), []
    chain = transformation(config.optim, hyper)
    state = chain.init(parameters)
    for gradient in gradients:
        update, state = chain.update(gradient, state, parameters)
        found.append(update)
    return found


def arrays(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return {"w": (scale * rng.normal(size=(3, 2))).astype(np.float32), "b": (scale * rng.normal(size=2)).astype("f4")}


@pytest.mark.parametrize("clip", [0.5, 1.25, 100.0])
def test_clipping_by_global_norm(clip):
    gradient = arrays(0)
    config = tiny.config(optim__clipping="global_norm", optim__clip=clip)
    (found,) = jax.jit(lambda g: updates(config, [g], g))(gradient)
    norm = math.sqrt(sum(np.sum(np.square(x.astype(np.float64))) for x in gradient.values()))
    assert 1.25 < norm < 100
    for name, x in gradient.items():
        np.testing.assert_allclose(found[name], x * min(1.0, clip / norm), rtol=1e-6)
    assert references.global_norm(found) == pytest.approx(min(norm, clip), rel=1e-6)


def test_clipping_by_value():
    gradient = arrays(0)
    (found,) = updates(tiny.config(optim__clipping="value", optim__clip=0.3), [gradient], gradient)
    for name, x in gradient.items():
        np.testing.assert_allclose(found[name], np.minimum(0.3, np.maximum(-0.3, x)), rtol=1e-6)


@pytest.mark.parametrize(("clip", "scale"), [(0.5, 0.5 / (0.1 * 5)), (0.49, 0.49 / (0.1 * 5)), (0.51, 1.0)])
def test_clipping_of_the_step(clip, scale):
    """The rate is 0.1 and the update (3, 4) has norm 5; the gradient's own norm is not clipped."""
    config = tiny.config(optim__clipping="step_norm", optim__clip=clip)
    update = {"w": jnp.array([3.0]), "b": jnp.array([4.0])}
    found = clip_step(config.optim, hyper_of(config), jnp.float32(0.1), update)
    np.testing.assert_allclose(found["w"], 3 * scale, rtol=1e-6)
    np.testing.assert_allclose(found["b"], 4 * scale, rtol=1e-6)
    (unclipped,) = updates(config, [update], update)
    assert unclipped["w"] == 3.0


# --- Schedules --------------------------------------------------------------------------------------------------


def rates(steps, base=1.0, windows_per_epoch=7, total_steps=100, **settings):
    """The learning rate at each of `steps`."""
    config = tiny.config(**{f"optim__{key}": value for key, value in settings.items()})

    def rate(step):
        return learning_rate(config.optim, jnp.float32(base), step, windows_per_epoch, total_steps)

    return np.asarray(jax.jit(jax.vmap(rate))(np.asarray(steps, np.int32)))


def test_staircase_of_assignment_6():
    """10 x 0.1 ^ floor(step / 5000)."""
    steps = [0, 100, 4999, 5000, 7000, 9999, 10_000]
    found = rates(steps, 10.0, schedule="staircase", decay_rate=0.1, decay_steps=5000)
    np.testing.assert_allclose(found, [10, 10, 10, 1, 1, 1, 0.1], rtol=1e-6)


def test_epochs_of_ptb_word_lm():
    """Cognitive Class 2018: epochs 1 to 5 at 1.0, the 6th at 0.5, the 15th at 0.001, from an epoch's first step on."""
    epochs = np.repeat(np.arange(15), 7)
    found = rates(np.arange(15 * 7), schedule="epochs", decay_rate=0.5, hold_epochs=4)
    np.testing.assert_allclose(found, [0.5 ** max(epoch - 4, 0) for epoch in epochs], rtol=1e-6)
    assert found[5 * 7 - 1] == 1.0
    assert found[5 * 7] == 0.5
    assert found[-1] == pytest.approx(0.0009765625)


def test_warm_up_is_linear_and_ends():
    np.testing.assert_allclose(rates(range(6), 2.0, warmup_steps=4), [0.5, 1, 1.5, 2, 2, 2], rtol=1e-6)


def test_cosine_by_hand():
    found = rates([0, 25, 50, 75, 100], 2.0, schedule="cosine", final_fraction=0.1)
    wanted = [0.1 + 0.9 * (1 + math.cos(math.pi * x)) / 2 for x in (0, 0.25, 0.5, 0.75, 1)]
    np.testing.assert_allclose(found, 2 * np.array(wanted), rtol=1e-6)
    assert found[0] == 2
    assert found[-1] == pytest.approx(0.2)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rates_that_depend_on_the_length_of_a_run_are_known(schedule):
    """Programs, lanes and resumed runs of other lengths differ exactly if the schedule is in OVER_THE_RUN."""
    short, long = (rates([1, 20, 50], total_steps=total, schedule=schedule, decay_rate=0.5) for total in (100, 200))
    assert (schedule in OVER_THE_RUN) == (short.tolist() != long.tolist())


def test_constant():
    np.testing.assert_array_equal(rates([0, 10, 10**6], 0.5), [0.5] * 3)


# --- Optimisers -------------------------------------------------------------------------------------------------


def sgd(gradients, parameters):
    return gradients


def momentum(gradients, parameters, decay=0.8):
    """v = decay v + g; the update is v."""
    found, v = [], 0.0
    for g in gradients:
        v = decay * v + g
        found.append(v)
    return found


def nesterov(gradients, parameters, decay=0.8):
    """v = decay v + g; the update is decay v + g (Sutskever et al. 2013, as in torch)."""
    return [decay * v + g for v, g in zip(momentum(gradients, parameters, decay), gradients, strict=True)]


def rmsprop(gradients, parameters, beta=0.95, epsilon=1e-3):
    """Tieleman & Hinton 2012, epsilon outside of the root."""
    found, s = [], 0.0
    for g in gradients:
        s = beta * s + (1 - beta) * g * g
        found.append(g / (np.sqrt(s) + epsilon))
    return found


def adam(gradients, parameters, beta1=0.7, beta2=0.95, epsilon=1e-3):
    """Kingma & Ba 2015, algorithm 1."""
    found, m, v = [], 0.0, 0.0
    for t, g in enumerate(gradients, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        found.append(m / (1 - beta1**t) / (np.sqrt(v / (1 - beta2**t)) + epsilon))
    return found


def adamw(gradients, parameters):
    """Loshchilov & Hutter 2019: decay is added to Adam's update."""
    return [update + 0.1 * parameters for update in adam(gradients, parameters)]


def sgd_l2(gradients, parameters):
    return [g + 0.1 * parameters for g in gradients]


def adam_l2(gradients, parameters):
    """Adam of the gradient of loss + 0.1 / 2 |parameters|^2."""
    return adam(sgd_l2(gradients, parameters), parameters)


PLAIN = (sgd, momentum, nesterov, rmsprop, adam)
DECAYED = {"sgd": sgd_l2, "adam": adam_l2, "adamw": adamw}


def test_every_optimiser_has_a_reference():
    assert {f.__name__ for f in PLAIN} | DECAYED.keys() == OPTIMISERS.keys() - set(AVERAGED)


def test_optimisers_are_their_papers():
    """Four steps of each, on the same gradients; one program."""
    gradients, parameters = [arrays(seed) for seed in range(4)], arrays(9)
    cases = {(f.__name__, 0.0): f for f in PLAIN} | {(name, 0.1): f for name, f in DECAYED.items()}

    @jax.jit
    def run(gradients, parameters):
        found = {}
        for name, decay in cases:
            config = tiny.config(
                optim__name=name,
                optim__clipping="none",
                optim__momentum=0.8,
                optim__epsilon=1e-3,
                optim__beta1=0.7,
                optim__beta2=0.95,
                optim__weight_decay=decay,
            )
            found[name, decay] = updates(config, gradients, parameters)
        return {str(case): value for case, value in found.items()}

    found = run(gradients, parameters)
    for case, reference in cases.items():
        for name in ("w", "b"):
            exact = [g[name].astype(np.float64) for g in gradients]
            expected = reference(exact, parameters[name].astype(np.float64))
            seen = [update[name] for update in found[str(case)]]
            np.testing.assert_allclose(seen, expected, rtol=2e-4, atol=1e-6, err_msg=f"{case} {name}")


# --- Whole steps ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batching", ["rows", pytest.param("windows", marks=pytest.mark.slow)])
def test_training_steps_are_those_of_a_float64_implementation(batching):
    """PTB's settings in small: rows, mean over the batch and sum over time, clipping, epochs at falling rates.

    7 steps of 3 windows an epoch: with rows, the state is carried within an epoch and begins anew with the next; with
    windows, it begins anew at every step. Gradients of the reference are central differences.
    """
    config = tiny.config(
        data__batching=batching,
        loss__weighting="sum_over_time",
        optim__schedule="epochs",
        optim__decay_rate=0.5,
        optim__learning_rate=0.7,
        optim__clip=0.8,
    )
    corpus = tiny.corpus(train=3 * 14)
    setup, hyper = make_setup(config, corpus), hyper_of(config)
    state, tokens = tiny.state(setup), jnp.asarray(corpus.splits["train"])
    parameters = references.float64(state.parameters)

    epoch = [np.concatenate([x, y[:, -1:]], axis=1).T for x, y in references.ptb_iterator(corpus.splits["train"], 3, 4)]
    assert len(epoch) == setup.task.steps_per_epoch == 3
    for step in range(7):
        if step % 3 == 0 or batching == "windows":
            carry = references.zero_state(parameters, 3)
        rate = 0.7 * 0.5 ** (step // 3)
        parameters, carry, loss, norm = references.sgd_step(
            parameters, carry, epoch[step % 3], rate, 0.8, weigh=lambda nats: nats.mean(axis=1).sum()
        )
        state, measured = train_steps(setup, state, tokens, hyper, 1)
        assert measured.loss[0] == pytest.approx(loss, rel=1e-5), step
        assert measured.gradient_norm[0] == pytest.approx(norm, rel=1e-4), step
        assert measured.learning_rate[0] == pytest.approx(rate, rel=1e-6), step
        assert norm > 0.8, "nothing is clipped: the test shows less than it says"
        found = references.leaves(state.parameters)
        for name, expected in references.leaves(parameters).items():
            np.testing.assert_allclose(found[name], expected, rtol=0, atol=1e-5, err_msg=f"step {step}: {name}")
        for (c, h), layer in zip(carry, state.carry, strict=True):
            np.testing.assert_allclose(layer.c, c, atol=1e-5)
            np.testing.assert_allclose(layer.h, h, atol=1e-5)


@pytest.mark.slow
def test_what_a_sweep_varies_compiles_nothing():
    """Rate, clip threshold, keep probabilities, seed and length: the same program serves all."""
    settings = {"model__input": "embedding", "model__embedding_size": 6}
    corpus = tiny.corpus(train=60)
    tokens = jnp.asarray(corpus.splits["train"])

    def run(**changes):
        config = tiny.config(keep_prob__input=0.8, optim__weight_decay=0.01, **settings, **{})
        config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
        setup, hyper = make_setup(config, corpus), hyper_of(config)
        state = tiny.state(setup)
        with tiny.compilations() as compiled:
            losses = np.asarray(train_steps(setup, state, tokens, hyper, 3)[1].loss)
        return compiled, losses

    compiled, first = run()
    assert any(tiny.STEPS in name for name in compiled), compiled
    for changes in (
        {"optim__learning_rate": 0.25},
        {"optim__clip": 0.01},
        {"keep_prob__input": 0.5},
        {"optim__weight_decay": 0.5},
        {"seed": 7, "train__steps": 1000, "train__report_every": 1, "checkpoint__every_steps": 1},
    ):
        compiled, losses = run(**changes)
        assert not compiled, (changes, compiled)
        assert (losses[1:] != first[1:]).any() == ("seed" not in changes), changes
