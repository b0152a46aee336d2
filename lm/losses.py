"""Cross-entropy in nats, per target, and the softmax loss that never holds all logits.

With 10,000 words the softmax is most of a small model's time, and [T*B, V] logits are most of its memory. The loss
here walks over chunks of targets; for each it computes logits, probabilities and, in the same pass while they are in
cache, the gradients. That is possible since the objective is linear in the per-target nats: its weights are known
before the forward pass.
"""

import functools

import jax
import jax.numpy as jnp

from lm.errors import UserError

Array = jax.Array

# Logits per chunk: 240 rows of 10,000 words measured best on two CPU cores (experiments/results/speed.md).
CHUNK_LOGITS = 2_400_000


def nats(logits: Array, targets: Array) -> Array:
    """-ln p(target): logits [..., V], integer targets [...] -> [...]."""
    picked = jnp.take_along_axis(logits, targets[..., None].astype(jnp.int32), axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked


def target_weights(weighting: str, steps: int, batch: int, dtype=jnp.float32) -> Array:
    """Weight of each target [T, B] in the objective.

    mean            1 / (T B): the mean over all targets
    sum_over_time   1 / B: mean over the batch, sum over time (TensorFlow's sequence_loss_by_example)
    sum             1: sum over everything
    last_step_sum   1 on the last time step, 0 before (Grokking Deep Learning ch. 14: only that loss is propagated)
    """
    if weighting == "last_step_sum":
        return jnp.zeros((steps, batch), dtype).at[-1].set(1.0)
    scale = {"mean": 1.0 / (steps * batch), "sum_over_time": 1.0 / batch, "sum": 1.0}
    if weighting not in scale:
        known = ", ".join([*scale, "last_step_sum"])
        raise UserError(f"config.loss.weighting: unknown {weighting!r}; known: {known}")
    return jnp.full((steps, batch), scale[weighting], dtype)


def full_gradient(features: Array) -> Array:
    """The true gradient."""
    return features


def last_step_features(features: Array) -> Array:
    """Losses of all time steps reach the softmax's weights, but only that of the last one reaches features [T, B, H].

    In effect what the autograd of Grokking Deep Learning, ch. 14, does: it drops every gradient that reaches a tensor
    a second time.
    """
    return jnp.concatenate([jax.lax.stop_gradient(features[:-1]), features[-1:]])


GRADIENTS = {"full": full_gradient, "last_step_features": last_step_features}


def penalties(factors: dict[str, Array], raw: Array, dropped: Array) -> Array:
    """Terms that the objective adds (Merity et al. 2017, section 4.3, as in awd-lstm-lm); 0.0 where there are none.

    raw, dropped [T, B, H]: the last layer's output before and after dropout; factors, of those that are active:
    activation           alpha x mean of dropped^2
    temporal_activation  beta x mean of (raw[t] - raw[t-1])^2
    """
    total = 0.0
    if "activation" in factors:
        total += factors["activation"] * jnp.mean(jnp.square(dropped))
    if "temporal_activation" in factors:
        total += factors["temporal_activation"] * jnp.mean(jnp.square(raw[1:] - raw[:-1]))
    return total


def softmax_loss(
    features: Array, kernel: Array, bias: Array, targets: Array, weights: Array, smoothing: Array | None = None
) -> tuple[Array, Array]:
    """Weighted softmax cross-entropy.

    features [N, H], kernel [H, V], bias [V], targets [N] integers, weights [N]
    smoothing: label smoothing e (Szegedy et al. 2016), a scalar: the objective's target distribution is 1 - e on the
        target plus e / V on every symbol; the nats stay those of the target
    Returns (objective: sum of weights * nats, or of their smoothed form, nats [N]). Only the objective carries a
    gradient, with respect to features, kernel and bias.
    """
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
    return objective, jax.lax.stop_gradient(per_target.reshape(-1)[:count])


def _chunk_forward(features, kernel, bias, targets):
    """logits, log-normaliser [R, 1] and nats [R] of one chunk of R rows."""
    logits = features @ kernel + bias[None]
    normaliser = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    picked = jnp.take_along_axis(logits, targets[:, None].astype(jnp.int32), axis=-1)
    return logits, normaliser, (normaliser - picked)[:, 0]


def _smoothed(nats_, logits, normaliser, smoothing):
    """What the objective sums, [R]: -sum over v of q_v ln p_v, q the smoothed target; without smoothing, the nats."""
    if smoothing is None:
        return nats_
    mean_nats = normaliser[:, 0] - jnp.mean(logits, axis=-1)
    return (1.0 - smoothing) * nats_ + smoothing * mean_nats


@jax.custom_vjp
def _chunked_loss(features, kernel, bias, targets, weights, smoothing):
    def chunk(total, inputs):
        features_c, targets_c, weights_c = inputs
        logits, normaliser, nats_c = _chunk_forward(features_c, kernel, bias, targets_c)
        return total + jnp.sum(weights_c * _smoothed(nats_c, logits, normaliser, smoothing)), nats_c

    return jax.lax.scan(chunk, jnp.zeros((), features.dtype), (features, targets, weights))


def _loss_and_gradients(features, kernel, bias, targets, weights, smoothing):
    def chunk(sums, inputs):
        total, d_kernel, d_bias = sums
        features_c, targets_c, weights_c = inputs
        logits, normaliser, nats_c = _chunk_forward(features_c, kernel, bias, targets_c)
        wanted = (jnp.arange(kernel.shape[1])[None] == targets_c[:, None].astype(jnp.int32)).astype(logits.dtype)
        if smoothing is not None:
            wanted = (1.0 - smoothing) * wanted + smoothing / kernel.shape[1]
        d_logits = weights_c[:, None] * (jnp.exp(logits - normaliser) - wanted)
        d_kernel = d_kernel + features_c.T @ d_logits
        total = total + jnp.sum(weights_c * _smoothed(nats_c, logits, normaliser, smoothing))
        sums = (total, d_kernel, d_bias + d_logits.sum(axis=0))
        return sums, (nats_c, d_logits @ kernel.T)

    start = (jnp.zeros((), features.dtype), jnp.zeros_like(kernel), jnp.zeros_like(bias))
    if features.shape[0] == 1:  # one chunk needs no loop
        first = jax.tree.map(functools.partial(jnp.squeeze, axis=0), (features, targets, weights))
        sums, outputs = chunk(start, first)
        nats_, d_features = jax.tree.map(lambda x: x[None], outputs)
    else:
        sums, (nats_, d_features) = jax.lax.scan(chunk, start, (features, targets, weights))
    objective, d_kernel, d_bias = sums
    return (objective, nats_), (d_features, d_kernel, d_bias)


def _scale_gradients(gradients, cotangents):
    d_objective, _ = cotangents  # the nats are a measurement: no gradient flows through them
    return (*(d_objective * gradient for gradient in gradients), None, None, None)


_chunked_loss.defvjp(_loss_and_gradients, _scale_gradients)
