"""Masks: their fraction, their scale, and their independence. Where each acts: test_regularisers.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.errors import UserError
from lm.model.dropout import SITES, Noise, drop, inverted_mask
from lm.model.language_model import make_model
from lm.training.optim import hyper_of
from lm.training.setup import make_setup
from lm.training.step import train_steps
from tests.helpers import tiny

KEEP = 0.8


def noise(seed=0, keep=KEEP, **options):
    return Noise(jax.random.key(seed), {site: jnp.float32(keep) for site in SITES}, **options)


@pytest.mark.parametrize("keep", [0.35, 0.8, 0.99])
def test_masks_keep_and_scale_the_given_fraction(keep):
    count = 200 * 500
    m = np.asarray(inverted_mask(jax.random.key(1), jnp.float32(keep), (200, 500)), np.float64)
    kept = m != 0
    np.testing.assert_allclose(m[kept], 1 / keep, rtol=1e-6)
    error = 5 * np.sqrt(keep * (1 - keep) / count)
    assert abs(kept.mean() - keep) < error
    assert abs(m.mean() - 1) < error / keep  # unbiased
    # no pattern: all rows and columns keep the same fraction, within 5 deviations
    assert np.abs(kept.mean(axis=0) - keep).max() < 5 * np.sqrt(keep * (1 - keep) / 200)
    assert np.abs(kept.mean(axis=1) - keep).max() < 5 * np.sqrt(keep * (1 - keep) / 500)


def test_dropout_preserves_the_expectation():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)), jnp.float32)

    @jax.jit
    def many(keys):
        return jax.vmap(lambda key: drop(Noise(key, {"input": jnp.float32(KEEP)}), "input", x))(keys)

    draws = many(jax.random.split(jax.random.key(0), 4000))
    deviation = np.abs(x) * np.sqrt((1 - KEEP) / KEEP)
    error = np.abs(np.asarray(draws, np.float64).mean(axis=0) - x)
    assert (error < 5 * deviation / np.sqrt(4000)).all()


def test_an_inactive_site_returns_its_input():
    x = jnp.ones((2, 3, 4))
    assert drop(None, "input", x) is x
    assert drop(Noise(jax.random.key(0), {"output": jnp.float32(KEEP)}), "input", x) is x


def test_sites_layers_and_steps_draw_different_masks():
    x = jnp.ones((5, 6, 40))
    elementwise = {
        (seed, site, layer): np.asarray(drop(noise(seed), site, x, layer))
        for seed in (0, 1)
        for site in ("input", "between", "output")
        for layer in (0, 1, 2)
    }
    names = list(elementwise)
    for i, a in enumerate(names):
        for b in names[:i]:
            same = np.mean(elementwise[a] == elementwise[b])
            # two independent masks agree with probability keep^2 + (1 - keep)^2 = 0.68; 1,200 elements
            assert abs(same - 0.68) < 0.07, (a, b, same)


def test_a_variational_mask_is_shared_through_time():
    x = jnp.ones((5, 6, 40))
    shared = np.asarray(drop(noise(mask="variational"), "between", x, 1))
    assert (shared == shared[:1]).all()
    assert 0.6 < np.mean(shared != 0) < 0.95
    own = np.asarray(drop(noise(mask="elementwise"), "between", x, 1))
    assert all((own[t] != own[0]).any() for t in range(1, 5))


def test_output_dropout_changes_the_features_and_not_the_state():
    """Zaremba et al. (2014): dropout on the output does not touch the recurrence."""
    model, parameters = tiny.model(model__hidden=(8,))
    window = jnp.asarray(tiny.text(40).reshape(10, 4))
    carry = model.initial_carry(4)
    only_output = Noise(jax.random.key(3), {"output": jnp.float32(0.5)})

    @jax.jit
    def features(noise):
        return model.apply({"params": parameters}, window, carry, noise, method="features")

    (clean_carry, clean), (noisy_carry, noisy) = features(None), features(only_output)
    for found, expected in zip(jax.tree.leaves(noisy_carry), jax.tree.leaves(clean_carry), strict=True):
        np.testing.assert_array_equal(found, expected)
    ratio = np.asarray(noisy) / np.asarray(clean)
    assert np.isclose(ratio, 0).sum() + np.isclose(ratio, 2).sum() == ratio.size
    assert 0.35 < np.isclose(ratio, 0).mean() < 0.65


def losses_without_learning(keep, seed=0):
    """Losses of 4 steps on the same window from zero state, with (practically) constant parameters."""
    embedding = {"model__input": "embedding", "model__embedding_size": 6}
    dropout = {"keep_prob__input": keep, "keep_prob__output": keep}
    config = tiny.config(data__batching="rows", optim__learning_rate=1e-12, **embedding, **dropout)
    corpus = tiny.corpus(train=3 * 6)  # rows of 6 tokens and unroll 4: an epoch is a single window
    setup, hyper = make_setup(config, corpus), hyper_of(config)
    assert setup.task.steps_per_epoch == 1
    state = tiny.state(setup)._replace(key=jax.random.key(seed))
    return np.asarray(train_steps(setup, state, jnp.asarray(corpus.splits["train"]), hyper, 4)[1].loss)


def test_masks_change_with_the_step_and_the_seed_only():
    without = losses_without_learning(keep=1 - 1e-6)
    np.testing.assert_allclose(without, without[0], rtol=1e-5)
    first, again, other = (losses_without_learning(keep=0.7, seed=seed) for seed in (0, 0, 1))
    assert len(np.unique(first)) == 4
    np.testing.assert_array_equal(first, again)
    assert not np.intersect1d(first, other).size


def test_input_dropout_needs_an_embedding():
    with pytest.raises(UserError, match=r"config\.keep_prob\.input"):
        make_model(tiny.config(keep_prob__input=0.9), tiny.V)
