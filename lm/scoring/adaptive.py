"""Scores a text with a model that adapts as it reads. The score of a token depends only on earlier tokens.

temperature  divides the logits by a number (Melis et al. 2018); no adaptation
cache        mixes in a distribution over the tokens that followed similar states (Grave et al. 2017):
             p(w) = (1 - lambda) p_model(w) + lambda sum_i softmax_i(theta h_i . h); the softmax is over the last W
             states h_i, the sum is over those that w followed
dynamic      after each segment, takes a gradient step on the sum of its nats, with decay toward the trained parameters
             (Krause et al. 2018): p <- p - rate * gradient + decay * (trained - p)
both         dynamic evaluation, with a cache on top

h is the last layer's output. The state is carried over the whole text.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Integer

from lm.model.language_model import LanguageModel, read_tokens


class Adaptation(NamedTuple):
    """config.evaluation: temperature; theta and lambda (share) of the cache; rate and decay of the gradient steps."""

    temperature: Float[Array, ""] | float
    theta: Float[Array, ""] | float
    share: Float[Array, ""] | float
    rate: Float[Array, ""] | float
    decay: Float[Array, ""] | float


class Cache(NamedTuple):
    """The last W states, the token after each, and whether the entry is filled. The newest entry is last."""

    h: Float[Array, "W P"]
    after: Int[Array, " W"]
    filled: Bool[Array, " W"]


@functools.partial(jax.jit, static_argnames=("model", "adapts", "cached"))
def adaptive_nats(
    model: LanguageModel,
    parameters: dict,
    windows: Integer[Array, "K R 1"],
    adapts: str,
    cached: int,
    adaptation: Adaptation,
) -> Float[Array, "K R-{model.context} 1"]:
    """Nats of the targets of consecutive windows, each one segment. adapts: as in the table above; cached: W"""

    def read(adapted: dict, window, carry) -> Any:
        return model.apply({"params": adapted}, window, carry, method="scored")

    def descend(parameter, gradient, trained):
        return parameter - adaptation.rate * gradient + adaptation.decay * (trained - parameter)

    def step(before, window):
        adapted, carry, cache = before
        if adapts == "temperature":
            carry, logits = read_tokens(model, adapted, window[:-1], carry)
            log_probs = jax.nn.log_softmax(logits / adaptation.temperature)
            targets = window[model.context :, :, None].astype(jnp.int32)
            return (adapted, carry, cache), -jnp.take_along_axis(log_probs, targets, axis=-1)[..., 0]
        if adapts == "cache":
            _, (carry, h, nats) = read(adapted, window, carry)
        else:
            (_, (carry, h, nats)), gradients = jax.value_and_grad(read, has_aux=True)(adapted, window, carry)
            adapted = jax.tree.map(descend, adapted, gradients, parameters)
        if adapts != "dynamic":
            cache, nats = _mix(cache, h[:, 0], window[model.context :, 0].astype(jnp.int32), nats[:, 0], adaptation)
        return (adapted, carry, cache), nats.reshape(-1, 1)

    size = model.cell.output_size(model.config.hidden[-1])
    cache = Cache(jnp.zeros((cached, size)), jnp.zeros(cached, jnp.int32), jnp.zeros(cached, bool))
    return jax.lax.scan(step, (parameters, model.initial_carry(1), cache), windows)[1]


def _mix(
    cache: Cache, h: Float[Array, "T P"], targets: Int[Array, " T"], nats: Float[Array, " T"], adaptation: Adaptation
) -> tuple[Cache, Float[Array, " T"]]:
    """Returns (cache after these tokens, nats with the cache mixed in). A step reads the W entries before it."""
    size, steps = len(cache.after), len(targets)
    h_all, after = jnp.concatenate([cache.h, h]), jnp.concatenate([cache.after, targets])
    filled = jnp.concatenate([cache.filled, jnp.ones(steps, bool)])
    place, step = jnp.arange(size + steps)[None], jnp.arange(steps)[:, None]
    seen = (place >= step) & (place < step + size) & filled[None]
    scores = jnp.where(seen, adaptation.theta * h @ h_all.T, -jnp.inf)
    matching = jnp.where(after[None] == targets[:, None], scores, -jnp.inf)
    log_cache = jax.nn.logsumexp(matching, axis=1) - jax.nn.logsumexp(scores, axis=1)
    mixed = -jnp.logaddexp(jnp.log1p(-adaptation.share) - nats, jnp.log(adaptation.share) + log_cache)
    mixed = jnp.where(jnp.any(seen, axis=1), mixed, nats)  # with an empty cache, the model alone
    return Cache(h_all[steps:], after[steps:], filled[steps:]), mixed
