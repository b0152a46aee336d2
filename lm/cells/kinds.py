"""The three kinds of cells that lm/cells/recurrence.py can run, and the state they carry.

A cell's equations are a pure function. Randomness, the loop over time and the drawing of parameters live elsewhere:
lm/model/dropout.py, lm/cells/recurrence.py, lm/model/layer.py. The carry's field `h` is the layer's output.
Notation and conventions: lm/cells/__init__.py.
"""

import functools
import operator
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

# Types in the signatures of equations.
Gates = Float[Array, "B GH"]  # pre-activations of all gates
Mask = Float[Array, "B H"] | None  # multiplies a state or a candidate; None: no mask
Vector = Float[Array, " N"]  # a parameter that is not a matrix: a bias, or one weight per unit
Product = Callable[[str, Array], Array]  # product(name, u [B, m]) = u @ parameters[name]

Shape = tuple[int, ...]
Parameters = dict[str, tuple[str, Shape]]  # name -> (role, shape); config.init has an initialiser for each role


def sized(shapes: tuple[tuple[str, str, str], ...], **sizes: int) -> Parameters:
    """(name, role, shape) of each parameter with the shape in numbers: "D 4H" is (D, 4 * H) for D and H in sizes."""
    return {
        name: (role, tuple(int(axis[:-1] or 1) * sizes[axis[-1]] for axis in shape.split()))
        for name, role, shape in shapes
    }


class PointwiseCell(NamedTuple):
    """A cell that is elementwise between z_x = x w_x + b and z_h = h w_h.

    carry:      NamedTuple type of the state, fields [B, H]
    gates:      G, the number of H-wide groups in z_x and z_h
    pointwise:  (z_x [B, GH], z_h [B, GH], carry, **vectors {name: [H]}, **masks {name: [B, H]}) -> carry
    vectors:    (name, role) of learned vectors [H], such as peephole weights
    masks:      masks that fit the equations (recurrence.RecurrentNoise): the loop multiplies `hidden` onto h where
                w_h reads it; the equations multiply `update` onto the candidate g
    """

    carry: type
    gates: int
    pointwise: Callable
    vectors: tuple[tuple[str, str], ...] = ()
    masks: tuple[str, ...] = ("hidden", "update")

    def parameters(self, inputs: int, units: int) -> Parameters:
        """w_x [D, GH], w_h [H, GH], b [GH] and the vectors [H]."""
        width = f"{self.gates}H"
        shapes = (("w_x", "input", f"D {width}"), ("w_h", "recurrent", f"H {width}"), ("b", "bias", width))
        return sized((*shapes, *((name, role, "H") for name, role in self.vectors)), D=inputs, H=units)

    def output_size(self, units: int) -> int:
        """Size P of the output h."""
        return units


class StepCell(NamedTuple):
    """A cell whose step multiplies in another way than by h w_h alone.

    carry:      NamedTuple type of the state, fields [B, H]
    step:       (product, z, carry, **vectors {name: [*]}, **masks {name: [B, H]}) -> carry. `product` may read each
                matrix once per step; `vectors` are the parameters that are not matrices
    shapes:     (name, role, shape) of each parameter; shapes as in "D 4H", of D, H and P
    projected:  whether z is x w_x + b [B, *], computed for the whole window outside the loop; else z is x [B, D]
    output:     P, the size of h, where it differs from H
    masks:      as for PointwiseCell; the step multiplies both itself
    """

    carry: type
    step: Callable
    shapes: tuple[tuple[str, str, str], ...]
    projected: bool = True
    output: int | None = None
    masks: tuple[str, ...] = ("hidden", "update")

    def parameters(self, inputs: int, units: int) -> Parameters:
        """{name: (role, shape)}."""
        return sized(self.shapes, D=inputs, H=units, P=self.output_size(units))

    def output_size(self, units: int) -> int:
        """Size P of the output h."""
        return self.output or units


class ParallelCell(NamedTuple):
    """A cell with s_t = a_t * s_{t-1} + b_t, where a and b depend on x alone: it runs in parallel over time.

    carry:   NamedTuple type of the state, fields [B, H]
    window:  (project, parameters, carry, solve, **masks {name: [T, B, H]}) -> (carry, h [T, B, H]). project(w) is
             x w [T, B, *] for the whole window; solve(a, b [T, B, *], s_{-1} [B, *]) is s [T, B, *]
    shapes:  as for StepCell
    masks:   `update` or nothing
    """

    carry: type
    window: Callable
    shapes: tuple[tuple[str, str, str], ...]
    masks: tuple[str, ...] = ("update",)

    def parameters(self, inputs: int, units: int) -> Parameters:
        """{name: (role, shape)}."""
        return sized(self.shapes, D=inputs, H=units)

    def output_size(self, units: int) -> int:
        """Size P of the output h."""
        return units


Cell = PointwiseCell | StepCell | ParallelCell


class HiddenCarry(NamedTuple):
    """The state of a cell that carries its output h alone."""

    h: Float[Array, "B H"]


class LSTMCarry(NamedTuple):
    """The state of an LSTM: memory c, then output h."""

    c: Float[Array, "B H"]
    h: Float[Array, "B P"]


def zero_carry(cell: Cell, batch: int, units: int, dtype=jnp.float32):
    """The all-zero state. Each field has its own buffer, so that all can be donated."""
    sizes = {name: cell.output_size(units) if name == "h" else units for name in cell.carry._fields}
    return cell.carry(**{name: jnp.zeros((batch, size), dtype) for name, size in sizes.items()})


# --- Parts of equations ---------------------------------------------------------------------------------------------


def squash(z: Gates, activations: str) -> list[Float[Array, "B H"]]:
    """Splits z into gates and applies to each its activation, one letter per gate: s sigmoid, t tanh.

    Since sigmoid(z) = 1/2 + 1/2 tanh(z / 2), one tanh serves all: one wide vector loop instead of G narrow ones.
    """
    group = jnp.arange(z.shape[-1])[None] // (z.shape[-1] // len(activations))
    tanhs = (group == g for g, activation in enumerate(activations) if activation == "t")
    is_tanh = functools.reduce(operator.or_, tanhs, group < 0)
    slope = jnp.where(is_tanh, 1.0, 0.5).astype(z.dtype)
    offset = jnp.where(is_tanh, 0.0, 0.5).astype(z.dtype)
    return jnp.split(slope * jnp.tanh(slope * z) + offset, len(activations), axis=-1)


def masked(mask: Float[Array, "..."] | None, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """mask * x, or x without a mask."""
    return x if mask is None else mask * x
