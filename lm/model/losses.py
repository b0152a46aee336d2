"""Softmax cross-entropy in nats per target, computed without ever holding all logits.

With 10,000 words, the softmax takes most of a small model's time, and [N, V] logits most of its memory. This loss
processes targets in chunks. For each chunk it computes logits, probabilities and, while these are in cache, gradients.
One pass suffices because each target's weight in the objective is known beforehand.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from lm.cells.products import weight_gradient

# Logits per chunk: 240 rows of 10,000 words measured best on two CPU cores (docs/speed.md).
CHUNK_LOGITS = 2_400_000

WEIGHTINGS = ("mean", "sum_over_time", "sum", "last_step_sum")


def target_weights(weighting: str, steps: int, batch: int, dtype=jnp.float32) -> Array:
    """Weight of each target [T, B] in the objective.

    mean            1 / (T B): the mean over all targets
    sum_over_time   1 / B: mean over the batch, sum over time (TensorFlow's sequence_loss_by_example)
    sum             1: sum over everything
    last_step_sum   1 on the last time step, 0 before (Grokking Deep Learning ch. 14: only its loss is propagated)
    """
    if weighting == "last_step_sum":
        return jnp.zeros((steps, batch), dtype).at[-1].set(1.0)
    scale = {"mean": 1.0 / (steps * batch), "sum_over_time": 1.0 / batch, "sum": 1.0}
    return jnp.full((steps, batch), scale[weighting], dtype)


def last_step_features(features: Float[Array, "T B P"]) -> Float[Array, "T B P"]:
    """Stops gradients to features before the last time step; the softmax's weights still learn from all steps.

    Trask (2019), "Grokking Deep Learning", chapter 14: the effect of an autograd that keeps only the first gradient
    that reaches a tensor.
    """
    return jnp.concatenate([jax.lax.stop_gradient(features[:-1]), features[-1:]])


GRADIENTS = {"full": lambda features: features, "last_step_features": last_step_features}


# Terms of the objective that are means over the batch; all others are weighted sums over rows (lm/training/devices.py).
MEANS = ("activation", "temporal_activation")


def penalties(
    factors: dict[str, Float[Array, ""]], raw: Float[Array, "T B P"], dropped: Float[Array, "T B P"]
) -> Float[Array, ""] | float:
    """Terms added to the objective, or 0.0 if none is active (Merity et al. 2017, section 4.3, as in awd-lstm-lm).

    activation           factor x mean of dropped^2
    temporal_activation  factor x mean of (raw[t] - raw[t-1])^2

    raw, dropped: the last layer's output before and after dropout
    """
    total = 0.0
    if "activation" in factors:
        total += factors["activation"] * jnp.mean(jnp.square(dropped))
    if "temporal_activation" in factors:
        total += factors["temporal_activation"] * jnp.mean(jnp.square(raw[1:] - raw[:-1]))
    return total


def softmax_loss(
    features: Float[Array, "*N P"],
    kernel: Float[Array, "P V"],
    bias: Float[Array, " V"],
    targets: Integer[Array, "*N"],
    weights: Float[Array, "*N"],
    smoothing: Float[Array, ""] | None = None,
) -> tuple[Float[Array, ""], Float[Array, "*N"]]:
    """Weighted softmax cross-entropy. Returns (objective: sum of weights * nats, nats of each target).

    Only the objective has a gradient, with respect to features, kernel and bias.
    smoothing: label smoothing e (Szegedy et al. 2016): the objective's target distribution has 1 - e on the target
        plus e / V on every symbol. The returned nats are not smoothed.
    """
    features = features.reshape(-1, features.shape[-1])
    shape, targets, weights = targets.shape, targets.reshape(-1), weights.reshape(-1)
    count, classes = targets.shape[0], kernel.shape[1]
    chunks = max(1, -(-count * classes // CHUNK_LOGITS))
    rows = -(-count // chunks)
    padding = rows * chunks - count

    def chunked(x):
        x = jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(chunks, rows, *x.shape[1:])

    objective, per_target = _chunked_loss(
        chunked(features), kernel, bias, chunked(targets), chunked(weights), smoothing
    )
    return objective, jax.lax.stop_gradient(per_target.reshape(-1)[:count]).reshape(shape)


def softmax_nats(
    features: Float[Array, "*N P"], kernel: Float[Array, "P V"], bias: Float[Array, " V"], targets: Integer[Array, "*N"]
) -> Float[Array, "*N"]:
    """-ln p(target) under softmax(features @ kernel + bias)."""
    return softmax_loss(features, kernel, bias, targets, jnp.ones(targets.shape, features.dtype))[1]


def _with_bias(features, kernel, bias):
    """Extends features [..., P] and kernel [P, V] so that their product includes the bias: saves a pass over logits."""
    ones = jnp.ones((*features.shape[:-1], 1), features.dtype)
    return jnp.concatenate([features, ones], axis=-1), jnp.concatenate([kernel, bias[None]])


def _chunk_forward(features, kernel, targets):
    """For R targets: exp(logits - highest) [R, V], its sum over V [R, 1], nats [R] and mean of -ln p over V [R]."""
    logits = features @ kernel
    highest = jnp.max(logits, axis=-1, keepdims=True)
    picked = jnp.take_along_axis(logits, targets[:, None].astype(jnp.int32), axis=-1)
    scaled = jnp.exp(logits - highest)
    total = jnp.sum(scaled, axis=-1, keepdims=True)
    normaliser = highest + jnp.log(total)
    return scaled, total, (normaliser - picked)[:, 0], normaliser[:, 0] - jnp.mean(logits, axis=-1)


def _smoothed(nats_, mean_nats, smoothing):
    """Cross-entropy with the smoothed target distribution [R]; nats_ if smoothing is None."""
    return nats_ if smoothing is None else (1.0 - smoothing) * nats_ + smoothing * mean_nats


@jax.custom_vjp
def _chunked_loss(features, kernel, bias, targets, weights, smoothing):
    features, kernel = _with_bias(features, kernel, bias)

    def chunk(total, inputs):
        features_c, targets_c, weights_c = inputs
        _, _, nats_c, mean_nats = _chunk_forward(features_c, kernel, targets_c)
        return total + jnp.sum(weights_c * _smoothed(nats_c, mean_nats, smoothing)), nats_c

    return jax.lax.scan(chunk, jnp.zeros((), features.dtype), (features, targets, weights))


def _loss_and_gradients(features, kernel, bias, targets, weights, smoothing):
    kernel_alone = kernel
    features, kernel = _with_bias(features, kernel, bias)

    def chunk(sums, inputs):
        objective, d_kernel = sums
        features_c, targets_c, weights_c = inputs
        scaled, total, nats_c, mean_nats = _chunk_forward(features_c, kernel, targets_c)
        # The gradient of the logits is (weight / total) (scaled - total q), where q is the target distribution. The
        # factor weight / total is applied to arrays [R, P] of both products, which saves a pass over [R, V].
        rows = jnp.arange(targets_c.shape[0])
        kept = 1.0 if smoothing is None else 1.0 - smoothing
        difference = scaled.at[rows, targets_c.astype(jnp.int32)].add(-kept * total[:, 0])
        if smoothing is not None:
            difference = difference - smoothing / kernel.shape[1] * total
        factor = weights_c[:, None] / total
        sums = (
            objective + jnp.sum(weights_c * _smoothed(nats_c, mean_nats, smoothing)),
            d_kernel + weight_gradient(factor * features_c, difference),
        )
        return sums, (nats_c, factor * (difference @ kernel_alone.T))

    start = (jnp.zeros((), features.dtype), jnp.zeros_like(kernel))
    if features.shape[0] == 1:  # one chunk needs no loop
        first = jax.tree.map(functools.partial(jnp.squeeze, axis=0), (features, targets, weights))
        sums, outputs = chunk(start, first)
        nats_, d_features = jax.tree.map(lambda x: x[None], outputs)
    else:
        sums, (nats_, d_features) = jax.lax.scan(chunk, start, (features, targets, weights))
    objective, d_kernel = sums
    return (objective, nats_), (d_features, d_kernel[:-1], d_kernel[-1])


def _scale_gradients(gradients, cotangents):
    d_objective, _ = cotangents  # the nats are a measurement: no gradient flows through them
    return (*(d_objective * gradient for gradient in gradients), None, None, None)


_chunked_loss.defvjp(_loss_and_gradients, _scale_gradients)
