"""The types of cells that lm/cells/recurrence.py can run, and their carries.

lm/model/layer.py draws the parameters; lm/model/dropout.py draws the noise.
The carry's field `h` is the layer's output. Notation and conventions: lm/cells/__init__.py.
"""

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
from jaxtyping import Array, Float

# Types in the signatures of equations.
Gates = Float[Array, "B GH"]  # pre-activations of all gates
Rows = Float[Array, "B D"]  # the layer's input at one step
Mask = Float[Array, "B H"] | None  # multiplies a state or a candidate; None: no mask
OutputMask = Float[Array, "B P"] | None  # multiplies a projected state
Vector = Float[Array, " N"]  # a parameter that is not a matrix: a bias, or one weight per unit
Product = Callable[[str, Array], Array]  # product(name, u [B, m]) = u @ parameters[name]

Carry = Any  # the state of a layer: a NamedTuple of arrays [B, *]
AnyCarry = TypeVar("AnyCarry")
Step = tuple[AnyCarry, dict[str, Float[Array, "B H"]]]  # the state after a step, and the gates by their names
Shape = tuple[int, ...]
Parameters = dict[str, tuple[str, Shape]]  # name -> (role, shape); config.init has an initialiser for each role


@dataclass(frozen=True)
class Cell:
    """A cell of any type.

    carry:      NamedTuple type of the state; its fields are [B, H], except h and p: [B, P]
    equations:  a pure function, whose arguments depend on the type of cell
    shapes:     (name, role, shape) of each parameter; a shape is a string of D, H and P, such as "D 4H"
    masks:      masks from recurrence.RecurrentNoise that the equations can apply
    output:     P, the size of h, if it differs from H
    read:       the fields of the carry that a step reads; None: all
    """

    carry: type[Any]
    equations: Callable
    shapes: tuple[tuple[str, str, str], ...]
    masks: tuple[str, ...] = ("hidden", "update")
    output: int | None = None
    read: tuple[str, ...] | None = None

    def parameters(self, inputs: int, units: int) -> Parameters:
        """Roles and shapes of all parameters; "D 4H" becomes (inputs, 4 * units)."""
        sizes = {"D": inputs, "H": units, "P": self.output_size(units)}
        return {
            name: (role, tuple(int(axis[:-1] or 1) * sizes[axis[-1]] for axis in shape.split()))
            for name, role, shape in self.shapes
        }

    def output_size(self, units: int) -> int:
        """Size P of the output h."""
        return self.output or units


class PointwiseCell(Cell):
    """A cell that is elementwise between z_x = x w_x + b and z_h = h w_h. The loop computes both products.

    equations: (z_x [B, GH], z_h [B, GH], carry, **vectors {name: [H]}, update [B, H]) -> Step. The loop multiplies
    the mask `hidden` onto h where w_h reads it; the equations multiply `update` onto the candidate g.
    """


class StepCell(Cell):
    """A cell whose step has matrix products other than h w_h.

    equations: (product, z_x [B, *], carry, **vectors {name: [*]}, **masks {name: [B, H]}) -> Step. They may
    call `product` once per matrix and step, and must apply the cell's `masks`. `vectors` are the parameters that are
    not matrices. z_x = x w_x + b is computed for the whole window outside the loop; if the cell has no b, z_x = x w_x.
    """


class UnprojectedCell(StepCell):
    """A StepCell whose equations read x [B, D] instead of z_x."""


class ParallelCell(Cell):
    """A cell with s_t = a_t * s_{t-1} + b_t, where a and b depend only on x. It runs in parallel over time.

    equations: (project, parameters, carry, solve, update [T, B, H]) -> (carry, h [T, B, H], gates {name: [T, B, H]}).
    project(w) is x w [T, B, *] for the whole window; solve(a, b [T, B, *], s_{-1} [B, *]) is s [T, B, *].
    """


def pointwise(
    carry: type[Any],
    gates: int,
    equations: Callable,
    vectors: tuple[tuple[str, str], ...] = (),
    masks: tuple[str, ...] = ("hidden", "update"),
) -> PointwiseCell:
    """A PointwiseCell with w_x [D, GH], w_h [H, GH], b [GH]; vectors: (name, role) of further parameters [H]."""
    width = f"{gates}H"
    shapes = (("w_x", "input", f"D {width}"), ("w_h", "recurrent", f"H {width}"), ("b", "bias", width))
    return PointwiseCell(carry, equations, (*shapes, *((name, role, "H") for name, role in vectors)), masks)


class HiddenCarry(NamedTuple):
    """The state of a cell that carries only its output h."""

    h: Float[Array, "B H"]


class OutputCarry(NamedTuple):
    """The state of a network whose probabilities feed back: p = softmax(h), and the logits h."""

    p: Float[Array, "B P"]
    h: Float[Array, "B P"]


class LSTMCarry(NamedTuple):
    """The state of an LSTM: memory c, then output h."""

    c: Float[Array, "B H"]
    h: Float[Array, "B P"]


def zero_carry(cell: Cell, batch: int, units: int, dtype=jnp.float32) -> Carry:
    """The all-zero state. Each field has its own buffer, so that jit can donate them all."""
    sizes = {name: cell.output_size(units) if name in ("h", "p") else units for name in cell.carry._fields}
    return cell.carry(**{name: jnp.zeros((batch, size), dtype) for name, size in sizes.items()})


# --- Parts of equations ---------------------------------------------------------------------------------------------


def squash(z: Gates, activations: str) -> list[Float[Array, "B H"]]:
    """Splits z into gates and applies each gate's activation, one letter per gate: s sigmoid, t tanh.

    Since sigmoid(z) = 1/2 + 1/2 tanh(z / 2), a single tanh, in one wide vector loop, computes all gates.
    """
    group = jnp.arange(z.shape[-1])[None] // (z.shape[-1] // len(activations))
    tanhs = (group == g for g, activation in enumerate(activations) if activation == "t")
    is_tanh = functools.reduce(operator.or_, tanhs, group < 0)  # group < 0: False everywhere
    slope = jnp.where(is_tanh, 1.0, 0.5).astype(z.dtype)
    offset = jnp.where(is_tanh, 0.0, 0.5).astype(z.dtype)
    return jnp.split(slope * jnp.tanh(slope * z) + offset, len(activations), axis=-1)


def masked(mask: Float[Array, "..."] | None, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """mask * x, or x if mask is None."""
    return x if mask is None else mask * x
