"""Recurrent cells: the equations, as pure functions, and the CELLS table that names them.

Shapes: B batch, D input size, H units, G gates. Every function is pure; randomness, products over time and
parameter creation live elsewhere (`dropout.py`, `recurrence.py`, `model.py`).

Most gated cells are *pointwise* between two matrix products,

    z_x = x W_x + b   [B, G*H]   for a whole window at once, outside the time loop
    z_h = h W_h       [B, G*H]   one product per time step

so such a cell states only the elementwise map from (z_x, z_h, carry) to the next carry. Cells of another form
state a whole `step`. Conventions that differ between frameworks, fixed here: an LSTM carry is (c, h) in this
order; gates stand in the order i, f, g, o; there is one bias; no forget bias is hidden in the equations.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
Shape = tuple[int, ...]


class LSTMCarry(NamedTuple):
    """The state of an LSTM: memory c [B, H], then output h [B, H]."""

    c: Array
    h: Array


class PointwiseCell(NamedTuple):
    """A cell that is elementwise between z_x = x W_x + b and z_h = h W_h.

    carry:      NamedTuple type of the state, each field [B, H]; it has a field `h`, which W_h reads
    gates:      G, the number of H-wide groups in z_x and z_h
    pointwise:  (z_x [B, G*H], z_h [B, G*H], carry, vectors {name: [H]}) -> (carry, h [B, H])
    vectors:    names of learned per-unit vectors, such as peephole weights
    """

    carry: type
    gates: int
    pointwise: Callable
    vectors: tuple[str, ...] = ()

    def parameters(self, inputs: int, units: int) -> dict[str, tuple[str, Shape]]:
        """Parameter name -> (role, shape); the role chooses the initialiser."""
        width = self.gates * units
        shapes = {
            "w_x": ("input", (inputs, width)),
            "w_h": ("recurrent", (units, width)),
            "b": ("bias", (width,)),
        }
        return shapes | {name: ("vector", (units,)) for name in self.vectors}


class StepCell(NamedTuple):
    """A cell that states its whole step, products included; autodiff differentiates the time loop.

    carry:       NamedTuple type of the state, each field [B, H]
    step:        (parameters, x [B, D], carry) -> (carry, h [B, H])
    parameters:  (D, H) -> {parameter name: (role, shape)}
    """

    carry: type
    step: Callable
    parameters: Callable[[int, int], dict[str, tuple[str, Shape]]]


Cell = PointwiseCell | StepCell


def zero_carry(cell: Cell, batch: int, units: int, dtype=jnp.float32):
    """The all-zero state, each field [B, H]. Every field has a buffer of its own, so all can be donated."""
    return cell.carry(*(jnp.zeros((batch, units), dtype) for _ in cell.carry._fields))


# --- Long short-term memory -----------------------------------------------------------------------------------


def lstm(z_x: Array, z_h: Array, carry: LSTMCarry, vectors: dict) -> tuple[LSTMCarry, Array]:
    """LSTM without peepholes, all gates from one fused product.

        i = sigmoid(z_i)    f = sigmoid(z_f)    g = tanh(z_g)    o = sigmoid(z_o)      z = z_x + z_h
        c' = f * c + i * g
        h' = o * tanh(c')

    Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000; as printed in Zaremba et al. 2014,
    section 3. Since sigmoid(z) = 1/2 + 1/2 tanh(z / 2), one tanh over the whole [B, 4H] block serves all four
    gates: one wide vector loop instead of four narrow ones.
    """
    del vectors
    units = carry.h.shape[-1]
    is_update = (jnp.arange(4 * units) // units) == 2
    slope = jnp.where(is_update, 1.0, 0.5).astype(z_x.dtype)
    offset = jnp.where(is_update, 0.0, 0.5).astype(z_x.dtype)
    i, f, g, o = jnp.split(slope * jnp.tanh(slope * (z_x + z_h)) + offset, 4, axis=-1)
    c = f * carry.c + i * g
    h = o * jnp.tanh(c)
    return LSTMCarry(c, h), h


LSTM_GATES = ("i", "f", "g", "o")


def lstm_unfused(parameters: dict, x: Array, carry: LSTMCarry) -> tuple[LSTMCarry, Array]:
    """The LSTM as assignment 6 prints it: eight separate products and four biases.

        i = sigmoid(x W_xi + h W_hi + b_i)    f = sigmoid(x W_xf + h W_hf + b_f)
        g = tanh   (x W_xg + h W_hg + b_g)    o = sigmoid(x W_xo + h W_ho + b_o)
        c' = f * c + i * g
        h' = o * tanh(c')

    The same function as `lstm`; `fuse_lstm` maps its parameters to those of `lstm`.
    """
    z = {
        gate: x @ parameters[f"w_x{gate}"] + carry.h @ parameters[f"w_h{gate}"] + parameters[f"b_{gate}"]
        for gate in LSTM_GATES
    }
    i, f, o = (jax.nn.sigmoid(z[gate]) for gate in "ifo")
    c = f * carry.c + i * jnp.tanh(z["g"])
    h = o * jnp.tanh(c)
    return LSTMCarry(c, h), h


def lstm_unfused_parameters(inputs: int, units: int) -> dict[str, tuple[str, Shape]]:
    """Shapes of `lstm_unfused`: W_x* [D, H], W_h* [H, H], b_* [H] for each of the four gates."""
    shapes = {f"w_x{gate}": ("input", (inputs, units)) for gate in LSTM_GATES}
    shapes |= {f"w_h{gate}": ("recurrent", (units, units)) for gate in LSTM_GATES}
    return shapes | {f"b_{gate}": ("bias", (units,)) for gate in LSTM_GATES}


def fuse_lstm(parameters: dict) -> dict:
    """Parameters of `lstm_unfused` -> the same function's parameters for `lstm`: w_x [D, 4H], w_h [H, 4H], b [4H]."""
    return {
        name: jnp.concatenate([parameters[f"{name}{joint}{gate}"] for gate in LSTM_GATES], axis=-1)
        for name, joint in (("w_x", ""), ("w_h", ""), ("b", "_"))
    }


CELLS: dict[str, Cell] = {
    "lstm": PointwiseCell(LSTMCarry, 4, lstm),
    "lstm_unfused": StepCell(LSTMCarry, lstm_unfused, lstm_unfused_parameters),
}
