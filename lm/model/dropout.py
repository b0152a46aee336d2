"""Dropout masks and their sites.

Keep probabilities are traced, so that changing one needs no recompilation. A site whose configured probability is 1 is
absent from `Noise.keep` and costs nothing. Masks are inverted: kept units are scaled by 1 / keep. Expectations are
therefore unchanged, and evaluation, which passes no `Noise`, needs no rescaling (Srivastava et al. 2014).

site         what is dropped                                mask       source
input        embedding -> first layer                       [T, B, D]  Zaremba et al. 2014
between      layer -> next layer                            [T, B, P]  Zaremba et al. 2014
output       last layer -> softmax                          [T, B, P]  Zaremba et al. 2014
recurrent    the candidate g, before its gate               [T, B, H]  Semeniuta et al. 2016
carried      h of a layer, as output and as state           [T, B, P]  Socher et al. 2015, CS224d, assignment 2
hidden       h[t-1] where the recurrent product reads it    [B, P]     Gal and Ghahramani 2016
embedding    whole rows of the embedding table              [V]        Gal and Ghahramani 2016, Merity et al. 2017
weight_drop  single weights of the recurrent matrices       [P, GH]    Merity et al. 2017 (DropConnect)

A window is what one training step reads. A [T, ...] mask is `elementwise`, drawn for every element, or `variational`,
drawn once per window and shared by its time steps (Merity et al. 2017 call it locked). All other masks are drawn once
per window. The next window gets new masks, although the state is carried over.
"""

from collections.abc import Callable
from dataclasses import field
from typing import TypeGuard

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, Key

# STREAMS: all sources of noise. `noise_key` uses a name's position and the length of STREAMS, so a change of this list
# changes the random numbers.
SITES = ("input", "between", "output", "recurrent", "carried", "hidden", "embedding", "weight_drop")
STREAMS = (*SITES, "zoneout_memory", "zoneout_output")

MASKS = ("elementwise", "variational")


@flax.struct.dataclass
class Noise:
    """The randomness of one training step. All fields except `mask` and `parts` are traced.

    keep: keep probability of each active site of SITES
    zoneout: rate of each active zoneout, `memory` or `output`
    mask: a name of MASKS, for sites whose masks have a time axis
    parts, part: the batch is split into `parts` equal parts; the model sees number `part` (lm/training/devices.py)
    """

    key: Key[Array, ""]
    keep: dict[str, Float[Array, ""]]
    zoneout: dict[str, Float[Array, ""]] = field(default_factory=dict)
    mask: str = flax.struct.field(pytree_node=False, default="elementwise")
    part: Integer[Array, ""] | None = None
    parts: int = flax.struct.field(pytree_node=False, default=1)


def active(noise: Noise | None, site: str) -> TypeGuard[Noise]:
    """True in training, if the site's configured keep probability is below 1."""
    return noise is not None and site in noise.keep


def noise_key(noise: Noise, name: str, layer: int = 0) -> Key[Array, ""]:
    """Random key for one source of noise in one layer. name: one of STREAMS."""
    return jax.random.fold_in(noise.key, layer * len(STREAMS) + STREAMS.index(name))


def inverted_mask(
    key: Key[Array, ""], keep: Float[Array, ""], shape: tuple[int, ...], dtype=jnp.float32
) -> Float[Array, "..."]:
    """1 / keep with probability keep, else 0."""
    return jax.random.bernoulli(key, keep, shape).astype(dtype) / keep


def draw_rows(noise: Noise, draw: Callable, shape: tuple[int, ...]) -> Float[Array, "..."]:
    """draw(shape) for shape [..., B, H]. For a part of the batch, draws for the full batch and cuts out its rows."""
    if noise.part is None:
        return draw(shape)
    rows = shape[-2]
    whole = draw((*shape[:-2], rows * noise.parts, shape[-1]))
    return jax.lax.dynamic_slice_in_dim(whole, noise.part * rows, rows, axis=whole.ndim - 2)


def time_mask(
    noise: Noise, site: str, shape: tuple[int, ...], layer: int = 0, dtype=jnp.float32
) -> Float[Array, "T B H"]:
    """Mask of an active site for shape [T, B, H]. A variational mask has T = 1."""
    return window_mask(noise, site, (1, *shape[1:]) if noise.mask == "variational" else shape, layer, dtype)


def window_mask(
    noise: Noise, site: str, shape: tuple[int, ...], layer: int = 0, dtype=jnp.float32
) -> Float[Array, "..."]:
    """Mask of an active site, drawn once per window. shape: [..., B, H], or [V] for a mask that all rows share."""
    key = noise_key(noise, site, layer)
    if len(shape) == 1:
        return inverted_mask(key, noise.keep[site], shape, dtype)
    return draw_rows(noise, lambda shape: inverted_mask(key, noise.keep[site], shape, dtype), shape)


def zoneout_mask(
    noise: Noise, name: str, shape: tuple[int, ...], layer: int = 0, dtype=jnp.float32
) -> Float[Array, "T B H"]:
    """Mask: 1 (keeps the previous value) with probability noise.zoneout[name], else 0. name: memory or output."""
    key = noise_key(noise, f"zoneout_{name}", layer)
    return draw_rows(noise, lambda shape: jax.random.bernoulli(key, noise.zoneout[name], shape).astype(dtype), shape)


def drop(noise: Noise | None, site: str, x: Float[Array, "T B D"], layer: int = 0) -> Float[Array, "T B D"]:
    """Multiplies x by the site's mask. Returns x unchanged if the site is not active."""
    if not active(noise, site):
        return x
    return x * time_mask(noise, site, x.shape, layer, x.dtype)


def drop_rows(
    noise: Noise | None, x: Float[Array, "T B E"], ids: Integer[Array, "T B"], rows: int
) -> Float[Array, "T B E"]:
    """Drops all occurrences of a symbol in a window together. x: embeddings of ids; rows: number of symbols

    Masking the looked-up rows gives the same result as masking the table and is cheaper.
    """
    if not active(noise, "embedding"):
        return x
    kept = window_mask(noise, "embedding", (rows,), dtype=x.dtype)
    return x * jnp.take(kept, ids, mode="clip")[..., None]


def drop_weights(
    noise: Noise | None, parameters: dict[str, Array], names: tuple[str, ...], layer: int = 0
) -> dict[str, Array]:
    """Drops single weights of each matrix in `names`. Returns all parameters of the layer."""
    if not active(noise, "weight_drop"):
        return parameters
    key, keep = noise_key(noise, "weight_drop", layer), noise.keep["weight_drop"]
    dropped = {}
    for index, name in enumerate(names):
        w = parameters[name]
        dropped[name] = w * inverted_mask(jax.random.fold_in(key, index), keep, w.shape, w.dtype)
    return parameters | dropped
