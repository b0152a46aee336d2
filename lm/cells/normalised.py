"""Cells with layer normalisation. Notation and conventions: lm/cells/__init__.py.

norm(u) = (u - mean of u) / sqrt(variance of u + 1e-5), with mean and variance over the last axis.
x w_x, h w_h and the memory c are normalised separately, each with its own gain, as in the supplement of
Ba, Kiros and Hinton (2016). "Layer Normalization". arXiv:1607.06450.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from lm.cells.kinds import Gates, HiddenCarry, LSTMCarry, Mask, Product, Step, StepCell, Vector, masked, squash

EPSILON = 1e-5
AnyVector = Float[Array, "..."]  # gains and biases, of different lengths


def scaled_norm(u: Float[Array, "B N"], gain: Vector) -> Float[Array, "B N"]:
    """Normalises each row of u (`norm` at the top of this file), then multiplies each column by its gain."""
    centred = u - u.mean(axis=-1, keepdims=True)
    return gain[None] * centred / jnp.sqrt((centred * centred).mean(axis=-1, keepdims=True) + EPSILON)


def normalised_sum(product: Product, z_x: Gates, h: Float[Array, "B H"], p: dict[str, AnyVector]) -> Gates:
    """The pre-activations z = gain_x * norm(x w_x) + gain_h * norm(h w_h) + b_z."""
    return scaled_norm(z_x, p["gain_x"]) + scaled_norm(product("w_h", h), p["gain_h"]) + p["b_z"][None]


def lstm_norm(
    product: Product, z_x: Gates, carry: LSTMCarry, hidden: Mask = None, update: Mask = None, **p: AnyVector
) -> Step[LSTMCarry]:
    """LSTM whose pre-activations and memory are normalised.

        z = gain_x * norm(x w_x) + gain_h * norm(h w_h) + b_z
        i = sigmoid(z_i)    f = sigmoid(z_f)    g = tanh(z_g)    o = sigmoid(z_o)
        c' = f * c + i * g
        h' = o * tanh(gain_c * norm(c') + b_c)

    The carry holds c' before normalisation.
    Parameters: w_x [D, 4H], w_h [H, 4H]; gain_x, gain_h, b_z [4H]; gain_c, b_c [H]. Gates i, f, g, o. One bias.

    Ba, Kiros and Hinton (2016). "Layer Normalization", supplement, equations 20 to 22.
    """
    z = normalised_sum(product, z_x, masked(hidden, carry.h), p)
    i, f, g, o = squash(z, "ssts")
    c = f * carry.c + i * masked(update, g)
    return LSTMCarry(c, o * jnp.tanh(scaled_norm(c, p["gain_c"]) + p["b_c"][None])), {"i": i, "f": f, "g": g, "o": o}


def lstm_coupled_norm(
    product: Product, z_x: Gates, carry: LSTMCarry, hidden: Mask = None, update: Mask = None, **p: AnyVector
) -> Step[LSTMCarry]:
    """`lstm_norm` with the coupled gate of `lstm_coupled`: f = 1 - i.

        z = gain_x * norm(x w_x) + gain_h * norm(h w_h) + b_z
        i = sigmoid(z_i)    g = tanh(z_g)    o = sigmoid(z_o)
        c' = (1 - i) * c + i * g
        h' = o * tanh(gain_c * norm(c') + b_c)

    Parameters: w_x [D, 3H], w_h [H, 3H]; gain_x, gain_h, b_z [3H]; gain_c, b_c [H]. Gates i, g, o. One bias.

    No source: this project combines Ba et al. (2016) and Greff et al. (2017).
    """
    z = normalised_sum(product, z_x, masked(hidden, carry.h), p)
    i, g, o = squash(z, "sts")
    c = (1 - i) * carry.c + i * masked(update, g)
    return LSTMCarry(c, o * jnp.tanh(scaled_norm(c, p["gain_c"]) + p["b_c"][None])), {"i": i, "g": g, "o": o}


def gru_norm(
    product: Product, z_x: Gates, carry: HiddenCarry, hidden: Mask = None, update: Mask = None, **p: AnyVector
) -> Step[HiddenCarry]:
    """GRU whose pre-activations are normalised, jointly for r and z and separately for g.

        r, z = sigmoid(gain_x * norm(x w_x) + gain_h * norm(h w_h) + b_z)
        g = tanh(gain_x * norm(x w_x) + b_z + r * (gain_h * norm(h w_h) + b_h))
        h' = z * h + (1 - z) * g

    z = 1 keeps the old state, as in `gru_reset_after`; in the paper, z = 1 takes the new state.
    Parameters: w_x [D, 3H], w_h [H, 3H]; gain_x, gain_h and b_z [3H] in the order r, z, g; b_h [H]. One bias for r and
    z; two for g.

    Ba, Kiros and Hinton (2016). "Layer Normalization", supplement, equations 23 to 25.
    """

    def split(u):
        """Splits pre-activations, gains or biases into those of r and z, and those of g."""
        return jnp.split(u, [2 * carry.h.shape[-1]], axis=-1)

    z_h = product("w_h", masked(hidden, carry.h))
    x_rz, x_g = map(scaled_norm, split(z_x), split(p["gain_x"]))
    h_rz, h_g = map(scaled_norm, split(z_h), split(p["gain_h"]))
    b_rz, b_g = split(p["b_z"][None])
    r, z = squash(x_rz + h_rz + b_rz, "ss")
    g = jnp.tanh(x_g + b_g + r * (h_g + p["b_h"][None]))
    return HiddenCarry(z * carry.h + (1 - z) * masked(update, g)), {"r": r, "z": z, "g": g}


def _shapes(gates: int, *more: tuple[str, str, str]) -> tuple[tuple[str, str, str], ...]:
    width = f"{gates}H"
    products = (("w_x", "input", f"D {width}"), ("w_h", "recurrent", f"H {width}"))
    return (*products, ("gain_x", "gain", width), ("gain_h", "gain", width), ("b_z", "bias", width), *more)


MEMORY = (("gain_c", "gain", "H"), ("b_c", "vector", "H"))

NORMALISED_CELLS = {
    "lstm_norm": StepCell(LSTMCarry, lstm_norm, _shapes(4, *MEMORY)),
    "lstm_coupled_norm": StepCell(LSTMCarry, lstm_coupled_norm, _shapes(3, *MEMORY)),
    "gru_norm": StepCell(HiddenCarry, gru_norm, _shapes(3, ("b_h", "vector", "H"))),
}
