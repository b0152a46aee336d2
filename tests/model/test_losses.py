"""Losses in nats against float64 NumPy; the chunked loss against autodiff of the plain expression."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.model import losses
from tests.helpers import references

H, V = 3, 7
WEIGHTINGS = ("mean", "sum_over_time", "sum", "last_step_sum")


def data(count, seed=0):
    """features [N, H], kernel [H, V], bias [V], targets [N]; NumPy arrays"""
    rng = np.random.default_rng(seed)
    numbers = (rng.normal(size=shape).astype(np.float32) for shape in ((count, H), (H, V), (V,)))
    return *numbers, rng.integers(0, V, count).astype(np.uint8)


@jax.jit
def plain(features, kernel, bias, targets, weights):
    """The same objective from all logits at once, by autodiff: (objective, gradients)."""

    def objective(features, kernel, bias):
        log_p = jax.nn.log_softmax(features @ kernel + bias[None])
        return -jnp.sum(weights * jnp.take_along_axis(log_p, targets[:, None].astype(jnp.int32), axis=1)[:, 0])

    return jax.value_and_grad(objective, argnums=(0, 1, 2))(features, kernel, bias)


def in_chunks_of(rows):
    """softmax_loss in chunks of at most `rows` rows, as a function that returns ((objective, nats), gradients)."""

    def both(features, kernel, bias, targets, weights):
        with pytest.MonkeyPatch.context() as patch:  # read while tracing
            patch.setattr(losses, "CHUNK_LOGITS", rows * V)
            return jax.value_and_grad(
                lambda *x: losses.softmax_loss(*x, targets, weights), argnums=(0, 1, 2), has_aux=True
            )(features, kernel, bias)

    return both


four_rows = jax.jit(in_chunks_of(4))


def assert_gradients_agree(found, expected):
    for name, x, y in zip(("features", "kernel", "bias"), found, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6, err_msg=name)


def nats_of(logits, targets):
    """losses.softmax_nats of logits [..., V]: the kernel is the identity."""
    classes = logits.shape[-1]
    rows = jnp.reshape(logits, (-1, classes)), jnp.eye(classes), jnp.zeros(classes), jnp.reshape(targets, -1)
    return losses.softmax_nats(*rows).reshape(jnp.shape(targets))


def test_nats_match_float64_numpy():
    rng = np.random.default_rng(0)
    logits = 5 * rng.normal(size=(4, 3, 11))
    logits[0, 0] += 1000  # no overflow
    logits[1, 1, 2] = -1e4
    targets = rng.integers(0, 11, (4, 3)).astype(np.uint8)
    targets[1, 1] = 2
    found = nats_of(jnp.asarray(logits, jnp.float32), jnp.asarray(targets))
    np.testing.assert_allclose(found, references.nats(logits.astype(np.float32), targets), rtol=1e-5, atol=1e-4)


def test_nats_match_a_calculation_by_hand():
    """p = (1/6, 2/6, 3/6)."""
    logits = jnp.log(jnp.asarray([1.0, 2.0, 3.0])) + 4.0
    for target, p in enumerate((1 / 6, 2 / 6, 3 / 6)):
        assert float(nats_of(logits, jnp.asarray(target))) == pytest.approx(-math.log(p), rel=1e-6)


@pytest.mark.parametrize(("classes", "expected"), [(2_000, 7.6009024595420822), (10_000, 9.2103403719761818)])
def test_a_uniform_model_has_ln_v_nats(classes, expected):
    """Socher et al. (2015), CS224d, assignment 2, prints both numbers."""
    targets = np.array([0, classes // 2, classes - 1])
    found = losses.softmax_nats(jnp.ones((3, H)), jnp.zeros((H, classes)), jnp.zeros(classes), jnp.asarray(targets))
    np.testing.assert_allclose(found, expected, rtol=2e-7)
    zeros = np.zeros((H, classes), np.float32), np.zeros(classes, np.float32)
    weights = np.full(3, 1 / 3, np.float32)
    objective, per_target = jax.jit(losses.softmax_loss)(np.ones((3, H), np.float32), *zeros, targets, weights)
    assert float(objective) == pytest.approx(expected, rel=3e-7)
    np.testing.assert_allclose(per_target, expected, rtol=2e-7)


def test_target_weights_match_a_calculation_by_hand():
    def weights(weighting):
        return np.asarray(losses.target_weights(weighting, 4, 5))

    np.testing.assert_allclose(weights("mean"), np.full((4, 5), 0.05))
    np.testing.assert_allclose(weights("sum_over_time"), np.full((4, 5), 0.2))
    np.testing.assert_array_equal(weights("sum"), np.ones((4, 5)))
    np.testing.assert_array_equal(weights("last_step_sum"), [[0] * 5] * 3 + [[1] * 5])


@pytest.mark.parametrize("shape", [(5, 3), (13, 1)])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_chunked_values_and_gradients_match_the_plain_expression(shape, weighting):
    """15 and 13 targets in four chunks of 4 rows: one and three rows are padding."""
    features, kernel, bias, targets = data(shape[0] * shape[1])
    weights = np.asarray(losses.target_weights(weighting, *shape)).reshape(-1)
    (objective, per_target), gradients = four_rows(features, kernel, bias, targets, weights)
    expected, expected_gradients = plain(features, kernel, bias, targets, weights)
    logits = features.astype(np.float64) @ kernel.astype(np.float64) + bias
    expected_nats = references.nats(logits, targets)
    np.testing.assert_allclose(per_target, expected_nats, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(objective, expected, rtol=1e-6)
    np.testing.assert_allclose(objective, np.sum(weights * expected_nats), rtol=1e-6)
    assert_gradients_agree(gradients, expected_gradients)


@pytest.mark.parametrize("rows", [1, 5, 13])
def test_the_result_does_not_depend_on_the_number_of_chunks(rows):
    features, kernel, bias, targets = data(13)
    weights = np.random.default_rng(1).uniform(0, 1, 13).astype(np.float32)
    (objective, _), gradients = jax.jit(in_chunks_of(rows))(features, kernel, bias, targets, weights)
    expected, expected_gradients = plain(features, kernel, bias, targets, weights)
    np.testing.assert_allclose(objective, expected, rtol=1e-6)
    assert_gradients_agree(gradients, expected_gradients)


def test_values_without_a_gradient_are_the_same(monkeypatch):
    """Without a gradient, another function computes them."""
    monkeypatch.setattr(losses, "CHUNK_LOGITS", 4 * V)
    features, kernel, bias, targets = data(13)
    weights = np.full(13, 1 / 13, np.float32)
    objective, per_target = jax.jit(losses.softmax_loss)(features, kernel, bias, targets, weights)
    expected = references.nats(features.astype(np.float64) @ kernel.astype(np.float64) + bias, targets)
    np.testing.assert_allclose(per_target, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(objective, expected.mean(), rtol=1e-6)


def test_gradients_scale_with_the_cotangent_of_the_objective():
    """d(x^2) = 2 x dx."""
    features, kernel, bias, targets = map(jnp.asarray, data(13))
    weights = jnp.full(13, 1 / 13)

    def squared(kernel):
        return jnp.square(losses.softmax_loss(features, kernel, bias, targets, weights)[0])

    expected, (_, expected_gradient, _) = plain(features, kernel, bias, targets, weights)
    np.testing.assert_allclose(
        jax.jit(jax.grad(squared))(kernel), 2 * expected * expected_gradient, rtol=1e-5, atol=1e-6
    )


def test_vmap_computes_several_models_at_once():
    """The way lanes train."""
    many = [data(13, seed) for seed in range(3)]
    weights = np.full(13, 1 / 13, np.float32)
    stacked = (np.stack(x) for x in zip(*many, strict=True))
    together = jax.jit(jax.vmap(in_chunks_of(4), in_axes=(0, 0, 0, 0, None)))(*stacked, weights)
    for i, one in enumerate(many):
        (objective, per_target), gradients = jax.tree.map(lambda x, i=i: x[i], together)
        expected, expected_gradients = plain(*one, weights)
        np.testing.assert_allclose(objective, expected, rtol=1e-6)
        np.testing.assert_allclose(np.mean(per_target), expected, rtol=1e-6)
        assert_gradients_agree(gradients, expected_gradients)


def test_the_nats_have_no_gradient():
    features, kernel, bias, targets = map(jnp.asarray, data(13))

    def measured(*x):
        return jnp.sum(losses.softmax_loss(*x, targets, jnp.ones(13))[1])

    for gradient in jax.jit(jax.grad(measured, argnums=(0, 1, 2)))(features, kernel, bias):
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


def test_targets_of_weight_zero_have_no_gradient():
    features, kernel, bias, targets = data(15)
    weights = np.asarray(losses.target_weights("last_step_sum", 5, 3)).reshape(-1)
    _, (gradient, _, _) = four_rows(features, kernel, bias, targets, weights)
    np.testing.assert_array_equal(gradient[:12], np.zeros((12, H)))
    assert (np.abs(gradient[12:]).max(axis=1) > 1e-3).all()
