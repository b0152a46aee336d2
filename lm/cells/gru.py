"""The gated recurrent unit and its variants. Notation and conventions: lm/cells/__init__.py."""

import jax.numpy as jnp

from lm.cells.kinds import Gates, HiddenCarry, Mask, Product, Step, StepCell, Vector, masked, pointwise, squash


def gru_reset_before(
    product: Product, z_x: Gates, carry: HiddenCarry, hidden: Mask = None, update: Mask = None
) -> Step[HiddenCarry]:
    """GRU that resets the state before the product.

        r, z = sigmoid(x w_x + h w_h + b)
        g = tanh(x w_x + (r * h) w_g + b)
        h' = z * h + (1 - z) * g

    z = 1 keeps the old state.
    Parameters: w_x [D, 3H] and b [3H] in the order r, z, g; w_h [H, 2H] in the order r, z; w_g [H, H]. One bias.

    Cho, van Merriënboer, Gulcehre, Bahdanau, Bougares, Schwenk and Bengio (2014). "Learning Phrase Representations
    using RNN Encoder-Decoder for Statistical Machine Translation". Chung, Gulcehre, Cho and Bengio (2014),
    "Empirical Evaluation of Gated Recurrent Neural Networks on Sequence Modeling", swap z and 1 - z.
    """
    h, units = masked(hidden, carry.h), carry.h.shape[-1]
    r, z = squash(z_x[:, : 2 * units] + product("w_h", h), "ss")
    g = jnp.tanh(z_x[:, 2 * units :] + product("w_g", r * h))
    return HiddenCarry(z * carry.h + (1 - z) * masked(update, g)), {"r": r, "z": z, "g": g}


GRU_SHAPES = (
    ("w_x", "input", "D 3H"),
    ("w_h", "recurrent", "H 2H"),
    ("w_g", "recurrent", "H H"),
    ("b", "bias", "3H"),
)


def gru_reset_after(z_x: Gates, z_h: Gates, carry: HiddenCarry, b_h: Vector, update: Mask = None) -> Step[HiddenCarry]:
    """GRU that resets after the product, so that one product computes all gates.

        r, z = sigmoid(z_x + z_h)
        g = tanh(z_x + r * (z_h + b_h))
        h' = z * h + (1 - z) * g            z_x = x w_x + b, z_h = h w_h

    z = 1 keeps the old state. This is the GRU of cuDNN, torch, flax and Keras.
    Parameters: w_x [D, 3H], w_h [H, 3H] and b [3H] in the order r, z, g; b_h [H]. One bias for r and z; two for g,
    which differ because r multiplies b_h.

    Cho et al. (2014), first version, arXiv:1406.1078v1.
    """
    units = carry.h.shape[-1]
    r, z = squash(z_x[:, : 2 * units] + z_h[:, : 2 * units], "ss")
    g = jnp.tanh(z_x[:, 2 * units :] + r * (z_h[:, 2 * units :] + b_h[None]))
    return HiddenCarry(z * carry.h + (1 - z) * masked(update, g)), {"r": r, "z": z, "g": g}


def mgu(
    product: Product, z_x: Gates, carry: HiddenCarry, hidden: Mask = None, update: Mask = None
) -> Step[HiddenCarry]:
    """Minimal gated unit: one gate both resets and updates.

        f = sigmoid(x w_x + h w_h + b)
        g = tanh(x w_x + (f * h) w_g + b)
        h' = (1 - f) * h + f * g

    Parameters: w_x [D, 2H] and b [2H] in the order f, g; w_h [H, H]; w_g [H, H]. One bias.

    Zhou, Wu, Zhang and Zhou (2016). "Minimal Gated Unit for Recurrent Neural Networks".
    """
    h, units = masked(hidden, carry.h), carry.h.shape[-1]
    (f,) = squash(z_x[:, :units] + product("w_h", h), "s")
    g = jnp.tanh(z_x[:, units:] + product("w_g", f * h))
    return HiddenCarry((1 - f) * carry.h + f * masked(update, g)), {"f": f, "g": g}


MGU_SHAPES = (
    ("w_x", "input", "D 2H"),
    ("w_h", "recurrent", "H H"),
    ("w_g", "recurrent", "H H"),
    ("b", "bias", "2H"),
)

GRU_CELLS = {
    "gru": StepCell(HiddenCarry, gru_reset_before, GRU_SHAPES),
    "gru_reset_after": pointwise(HiddenCarry, 3, gru_reset_after, (("b_h", "bias"),)),
    "mgu": StepCell(HiddenCarry, mgu, MGU_SHAPES),
}
