"""The gated recurrent unit and its kin. Shapes and conventions: kinds.py."""

import jax.numpy as jnp

from lm.cells.kinds import Array, HiddenCarry, Parameters, PointwiseCell, StepCell, masked, squash


def gru(product, z_x: Array, carry: HiddenCarry, vectors: dict, hidden=None, update=None) -> HiddenCarry:
    """GRU, reset before the product.

        r, z = sigmoid(x W_x + h W_h + b)
        g = tanh(x W_x + (r * h) W_g + b)
        h' = z * h + (1 - z) * g

    Cho et al. 2014, as the lecture on recurrent networks prints it: z keeps the old state (in Chung et al. 2014 it is
    the other way round). W_x [D, 3H] and b [3H] in the order r, z, g; W_h [H, 2H] in the order r, z; W_g [H, H].
    """
    del vectors
    h, units = masked(hidden, carry.h), carry.h.shape[-1]
    r, z = squash(z_x[:, : 2 * units] + product("w_h", h), "ss")
    g = jnp.tanh(z_x[:, 2 * units :] + product("w_g", r * h))
    return HiddenCarry(z * carry.h + (1 - z) * masked(update, g))


def gru_parameters(inputs: int, units: int) -> Parameters:
    """Shapes of `gru`."""
    return {
        "w_x": ("input", (inputs, 3 * units)),
        "w_h": ("recurrent", (units, 2 * units)),
        "w_g": ("recurrent", (units, units)),
        "b": ("bias", (3 * units,)),
    }


def gru_reset_after(z_x: Array, z_h: Array, carry: HiddenCarry, vectors: dict, update=None) -> HiddenCarry:
    """GRU, reset after the product, which is then one for all gates.

        r, z = sigmoid(z_x + z_h)
        g = tanh(z_x + r * (z_h + b_h))
        h' = z * h + (1 - z) * g

    Cho et al. 2014 in the first version (arXiv:1406.1078v1), as cuDNN and torch have it; z keeps the old state.
    The candidate's product has a bias of its own inside the reset, b_h [H]; for r and z two biases would be one, b.
    Gates r, z, g.
    """
    units = carry.h.shape[-1]
    r, z = squash(z_x[:, : 2 * units] + z_h[:, : 2 * units], "ss")
    g = jnp.tanh(z_x[:, 2 * units :] + r * (z_h[:, 2 * units :] + vectors["b_h"][None]))
    return HiddenCarry(z * carry.h + (1 - z) * masked(update, g))


def mgu(product, z_x: Array, carry: HiddenCarry, vectors: dict, hidden=None, update=None) -> HiddenCarry:
    """Minimal gated unit: one gate both resets and updates.

        f = sigmoid(x W_x + h W_h + b)
        g = tanh(x W_x + (f * h) W_g + b)
        h' = (1 - f) * h + f * g

    Zhou et al. 2016. W_x [D, 2H] and b [2H] in the order f, g; W_h [H, H]; W_g [H, H].
    """
    del vectors
    h, units = masked(hidden, carry.h), carry.h.shape[-1]
    (f,) = squash(z_x[:, :units] + product("w_h", h), "s")
    g = jnp.tanh(z_x[:, units:] + product("w_g", f * h))
    return HiddenCarry((1 - f) * carry.h + f * masked(update, g))


def mgu_parameters(inputs: int, units: int) -> Parameters:
    """Shapes of `mgu`."""
    return {
        "w_x": ("input", (inputs, 2 * units)),
        "w_h": ("recurrent", (units, units)),
        "w_g": ("recurrent", (units, units)),
        "b": ("bias", (2 * units,)),
    }


GRU_CELLS = {
    "gru": StepCell(HiddenCarry, gru, gru_parameters),
    "gru_reset_after": PointwiseCell(HiddenCarry, 3, gru_reset_after, (("b_h", "bias"),)),
    "mgu": StepCell(HiddenCarry, mgu, mgu_parameters),
}
