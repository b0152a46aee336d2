"""What a cell is: the three kinds of equations that lm/cells/recurrence.py can run, and the state they carry.

Shapes: T time, B batch, D input size, H units, G gates. Equations are pure functions; randomness, the loop over time
and the drawing of parameters live elsewhere (`dropout.py`, `recurrence.py`, `layer.py`). Conventions that differ
between frameworks, fixed here for all cells: an LSTM's carry is (c, h) in this order; gates stand in the order
i, f, g, o; there is one bias for each gate (where a cell needs two, the second has a name); no forget bias is hidden
in equations (`lstm_bias` of initialisers.py sets one). The carry's field `h` is the layer's output.
"""

import functools
import operator
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
Shape = tuple[int, ...]
Parameters = dict[str, tuple[str, Shape]]  # name -> (role, shape); the role chooses the initialiser: config.init


class PointwiseCell(NamedTuple):
    """A cell that is elementwise between z_x = x W_x + b and z_h = h W_h.

    carry:      NamedTuple type of the state, fields [B, H]
    gates:      G, the number of H-wide groups in z_x and z_h
    pointwise:  (z_x [B, G*H], z_h [B, G*H], carry, vectors {name: [H]}, **masks {name: [B, H]}) -> carry
    vectors:    (name, role) of learned per-unit vectors, such as peephole weights
    masks:      noise that the cell has a place for: `hidden` (the loop multiplies it onto h where W_h reads it) and
                `update` (the equations multiply it onto the candidate g), see recurrence.RecurrentNoise
    """

    carry: type
    gates: int
    pointwise: Callable
    vectors: tuple[tuple[str, str], ...] = ()
    masks: tuple[str, ...] = ("hidden", "update")

    def parameters(self, inputs: int, units: int) -> Parameters:
        """W_x [D, G*H], W_h [H, G*H], b [G*H] and the vectors [H]."""
        width = self.gates * units
        shapes = {
            "w_x": ("input", (inputs, width)),
            "w_h": ("recurrent", (units, width)),
            "b": ("bias", (width,)),
        }
        return shapes | {name: (role, (units,)) for name, role in self.vectors}

    def output_size(self, units: int) -> int:
        """Size of the output h."""
        return units


class StepCell(NamedTuple):
    """A cell with other products in its step.

    carry:       NamedTuple type of the state, fields [B, H]
    step:        (product, z, carry, vectors {name: [*]}, **masks {name: [B, H]}) -> carry.  product(name, u [B, m])
                 is u @ parameters[name] for the matrices; each is read at most once in a step. `vectors` are the
                 parameters that are no matrices
    parameters:  (D, H) -> Parameters
    projected:   whether z is x W_x + b [B, *], taken for the whole window outside the loop; else z is x [B, D]
    output:      size of h, where it is not H
    masks:       as for PointwiseCell; here the step itself multiplies both
    """

    carry: type
    step: Callable
    parameters: Callable[[int, int], Parameters]
    projected: bool = True
    output: int | None = None
    masks: tuple[str, ...] = ("hidden", "update")

    def output_size(self, units: int) -> int:
        """Size of the output h."""
        return self.output or units


class ParallelCell(NamedTuple):
    """A cell whose state obeys s_t = a_t * s_{t-1} + b_t, with a and b read from x alone: parallel over time.

    carry:       NamedTuple type of the state, fields [B, H]
    window:      (read, parameters, carry, solve, **masks {name: [T, B, H]}) -> (carry, h [T, B, H]).  read(w) is x w
                 [T, B, *] for the whole window; solve(a, b [T, B, *], s_{-1} [B, *]) is s [T, B, *]
    parameters:  (D, H) -> Parameters
    masks:       `update`, or none
    """

    carry: type
    window: Callable
    parameters: Callable[[int, int], Parameters]
    masks: tuple[str, ...] = ("update",)

    def output_size(self, units: int) -> int:
        """Size of the output h."""
        return units


Cell = PointwiseCell | StepCell | ParallelCell


class HiddenCarry(NamedTuple):
    """The state of a cell that carries nothing but its output h [B, H]."""

    h: Array


class LSTMCarry(NamedTuple):
    """The state of an LSTM: memory c [B, H], then output h [B, H]."""

    c: Array
    h: Array


def zero_carry(cell: Cell, batch: int, units: int, dtype=jnp.float32):
    """The all-zero state. Every field has a buffer of its own, so all can be donated."""
    sizes = {name: cell.output_size(units) if name == "h" else units for name in cell.carry._fields}
    return cell.carry(**{name: jnp.zeros((batch, size), dtype) for name, size in sizes.items()})


# --- Parts of equations ---------------------------------------------------------------------------------------------


def squash(z: Array, kinds: str) -> list[Array]:
    """z [B, G*H] -> G activations [B, H]; kinds has a letter for each: s sigmoid, t tanh.

    Since sigmoid(z) = 1/2 + 1/2 tanh(z / 2), one tanh serves all: one wide vector loop instead of G narrow ones.
    """
    group = jnp.arange(z.shape[-1])[None] // (z.shape[-1] // len(kinds))
    is_tanh = functools.reduce(operator.or_, (group == g for g, kind in enumerate(kinds) if kind == "t"), group < 0)
    slope = jnp.where(is_tanh, 1.0, 0.5).astype(z.dtype)
    offset = jnp.where(is_tanh, 0.0, 0.5).astype(z.dtype)
    return jnp.split(slope * jnp.tanh(slope * z) + offset, len(kinds), axis=-1)


def masked(mask: Array | None, x: Array) -> Array:
    """mask * x; x where there is no mask."""
    return x if mask is None else mask * x
