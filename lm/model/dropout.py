"""Dropout masks, and where they go.

A keep probability is a traced value, so that changing it compiles nothing; a site whose configured probability is 1
is left out of `Noise.keep` and costs nothing. Masks are inverted: kept units are scaled by 1 / keep, so the
expectation is unchanged and evaluation, which passes no `Noise`, needs no rescaling (Srivastava et al. 2014).

site         what is dropped                                mask       source
input        embedding -> first layer                       [T, B, D]  Zaremba et al. 2014
between      layer -> next layer                            [T, B, H]  Zaremba et al. 2014
output       last layer -> softmax                          [T, B, H]  Zaremba et al. 2014
recurrent    the update g of an LSTM's memory               [T, B, H]  Semeniuta et al. 2016
carried      h of a layer, output and state alike           [T, B, H]  CS224d, assignment 2
hidden       h[t-1] where the recurrent product reads it    [B, H]     Gal & Ghahramani 2016
embedding    whole rows of the embedding table              [V, 1]     Gal & Ghahramani 2016, Merity et al. 2017
weight_drop  single weights of the recurrent matrices       [H, G*H]   Merity et al. 2017 (DropConnect)

The [T, ...] masks are `elementwise` (drawn anew for every element) or `variational` (one mask, drawn for the window
and shared by all its time steps; with Merity et al. 2017's name, locked). The others are drawn once for a window.
A window is what one training step reads: masks do not outlive it, though the state does.
"""

from dataclasses import field

import flax.struct
import jax
import jax.numpy as jnp

Array = jax.Array

# Every source of noise, in a fixed order: the position keys its random stream, so new ones go at the end.
SITES = ("input", "between", "output", "recurrent", "carried", "hidden", "embedding", "weight_drop")
STREAMS = (*SITES, "zoneout_memory", "zoneout_output")

MASKS = ("elementwise", "variational")


@flax.struct.dataclass
class Noise:
    """One step's randomness. Fields but `mask` are traced.

    key: PRNG key; keep: keep probability (a scalar) of each active site of SITES
    zoneout: rate (a scalar) of each active zoneout, of `memory` and `output`
    mask: a name of MASKS, for the sites whose masks have a time axis
    part, parts: which of how many equal parts of the batch's rows the model sees (lm/training/devices.py)
    """

    key: Array
    keep: dict[str, Array]
    zoneout: dict[str, Array] = field(default_factory=dict)
    mask: str = flax.struct.field(pytree_node=False, default="elementwise")
    part: Array | None = None
    parts: int = flax.struct.field(pytree_node=False, default=1)


def stream(noise: Noise, name: str, layer: int = 0) -> Array:
    """The PRNG key of one source of noise in one layer."""
    return jax.random.fold_in(noise.key, layer * len(STREAMS) + STREAMS.index(name))


def mask(key: Array, keep: Array, shape: tuple[int, ...], dtype=jnp.float32) -> Array:
    """Inverted mask: 1 / keep with probability keep, else 0."""
    return jax.random.bernoulli(key, keep, shape).astype(dtype) / keep


def of_rows(noise: Noise, draw, shape: tuple[int, ...]) -> Array:
    """draw(shape) for shape [..., B, H]. Where B is a part of the batch: its rows of what the whole batch would get."""
    if noise.parts == 1:
        return draw(shape)
    rows = shape[-2]
    whole = draw((*shape[:-2], rows * noise.parts, shape[-1]))
    return jax.lax.dynamic_slice_in_dim(whole, noise.part * rows, rows, axis=whole.ndim - 2)


def active(noise: Noise | None, site: str) -> bool:
    """Whether a site drops: not in evaluation, and not where its probability is configured as 1."""
    return noise is not None and site in noise.keep


def time_mask(noise: Noise, site: str, shape: tuple[int, int, int], layer: int = 0, dtype=jnp.float32) -> Array:
    """Mask [T, B, D] of an active site; [1, B, D] where one is shared through time."""
    if noise.mask == "variational":
        shape = (1, *shape[1:])
    key = stream(noise, site, layer)
    return of_rows(noise, lambda shape: mask(key, noise.keep[site], shape, dtype), shape)


def window_mask(noise: Noise, site: str, shape: tuple[int, ...], layer: int = 0, dtype=jnp.float32) -> Array:
    """Mask of an active site that is drawn once for a window, whatever the config's kind of mask.

    shape: [B, H], or [V] for what all rows share
    """
    key = stream(noise, site, layer)
    if len(shape) == 1:
        return mask(key, noise.keep[site], shape, dtype)
    return of_rows(noise, lambda shape: mask(key, noise.keep[site], shape, dtype), shape)


def drop(noise: Noise | None, site: str, x: Array, layer: int = 0) -> Array:
    """x [T, B, D] under the site's mask; x itself where the site is off or in evaluation."""
    if not active(noise, site):
        return x
    return x * time_mask(noise, site, x.shape, layer, x.dtype)


def drop_rows(noise: Noise | None, x: Array, ids: Array, rows: int) -> Array:
    """Embedded x [T, B, D] of ids [T, B] as if whole rows of their table of V `rows` were dropped.

    A symbol is absent from the entire window, or scaled; masking the rows looked up is the same as masking the table
    and takes no product over all of it.
    """
    if not active(noise, "embedding"):
        return x
    kept = window_mask(noise, "embedding", (rows,), dtype=x.dtype)
    return x * jnp.take(kept, ids, mode="clip")[..., None]


def drop_weights(noise: Noise | None, parameters: dict, names: tuple[str, ...], layer: int = 0) -> dict:
    """A layer's parameters with single weights of the matrices `names` dropped, each under a mask of its own."""
    if not active(noise, "weight_drop"):
        return parameters
    key, keep = stream(noise, "weight_drop", layer), noise.keep["weight_drop"]
    dropped = {}
    for index, name in enumerate(names):
        w = parameters[name]
        dropped[name] = w * mask(jax.random.fold_in(key, index), keep, w.shape, w.dtype)
    return parameters | dropped


def zoneout_mask(noise: Noise, name: str, shape: tuple[int, int, int], layer: int = 0, dtype=jnp.float32) -> Array:
    """[T, B, H] of 1 with probability rate, else 0: 1 keeps the previous value. name: memory or output."""
    key = stream(noise, f"zoneout_{name}", layer)
    return of_rows(noise, lambda shape: jax.random.bernoulli(key, noise.zoneout[name], shape).astype(dtype), shape)
