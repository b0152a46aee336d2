"""Cells with a linear recurrence, which is solved for a whole window at once. Notation: lm/cells/__init__.py.

Training and sampling use the same equations: `solve` accepts a window of any length, even a single step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lm.cells.kinds import HiddenCarry, ParallelCell, masked

WindowMask = Float[Array, "T B H"] | None
Outputs = Float[Array, "T B H"]


def min_gru(
    project, parameters: dict, carry: HiddenCarry, solve, update: WindowMask = None
) -> tuple[HiddenCarry, Outputs, dict]:
    """minGRU: a GRU whose gate and candidate do not read the state.

        a, g = x w_x + b    z = sigmoid(a)
        h' = (1 - z) * h + z * g

    z = 1 takes the new state, unlike in `gru`. Since 1 - z lies in (0, 1), the scan does not need log space. The
    paper's appendix uses log space, which requires g > 0.
    Parameters: w_x [D, 2H], b [2H]. Gates z, g. One bias.

    Feng, Tung, Ahmed, Bengio and Hajimirsadeghi (2024). "Were RNNs All We Needed?". Section 3.1.
    """
    z, g = jnp.split(project(parameters["w_x"]) + parameters["b"][None, None], 2, axis=-1)
    z = jax.nn.sigmoid(z)
    h = solve(1 - z, z * masked(update, g), carry.h)
    return HiddenCarry(h[-1]), h, {"z": z, "g": g}


def min_lstm(
    project, parameters: dict, carry: HiddenCarry, solve, update: WindowMask = None
) -> tuple[HiddenCarry, Outputs, dict]:
    """minLSTM: an LSTM whose gates do not read the state and are normalised to sum to 1.

        i = sigmoid(z_i)    f = sigmoid(z_f)    g = z_g      z = x w_x + b
        h' = (f * h + i * g) / (f + i)

    Parameters: w_x [D, 3H], b [3H]. Gates i / (f + i) and f / (f + i), named i and f, and g. One
    bias.

    Feng et al. (2024), section 3.2, with the gates divided by f + i, so that h keeps its scale over time. Full
    reference: `min_gru`.
    """
    z_i, z_f, g = jnp.split(project(parameters["w_x"]) + parameters["b"][None, None], 3, axis=-1)
    # f / (f + i) = sigmoid(log f - log i), which is safe even if f and i underflow
    f = jax.nn.sigmoid(jax.nn.log_sigmoid(z_f) - jax.nn.log_sigmoid(z_i))
    h = solve(f, (1 - f) * masked(update, g), carry.h)
    return HiddenCarry(h[-1]), h, {"i": 1 - f, "f": f, "g": g}


class ComplexCarry(NamedTuple):
    """The complex state of an LRU as two real arrays."""

    real: Float[Array, "B H"]
    imaginary: Float[Array, "B H"]


def lru(project, parameters: dict, carry: ComplexCarry, solve) -> tuple[ComplexCarry, Outputs, dict]:
    """Linear recurrent unit: a complex diagonal recurrence, then a gated linear unit.

        a = exp(-exp(ring) + 1j exp(phase))                       complex [H], |a| < 1
        s' = a * s + sqrt(1 - |a|^2) * (x w_real + 1j x w_imaginary)
        y = Re(s' (c_real + 1j c_imaginary)) + x w_skip
        h = (y w_value + b_value) * sigmoid(y w_gate + b_gate)

    Here the factor sqrt(1 - |a|^2) always follows a; in the paper, this is only its initial value. The last line is the
    gated linear unit of the paper's block, the layer's only non-linearity. The rest of the block is left out.
    To draw a on a ring as in the paper, set config.init.ring = ("lru_ring", least |a|, greatest |a|) and
    config.init.phase = ("lru_phase", greatest angle).
    Parameters: ring, phase [H]; w_real, w_imaginary, w_skip [D, H]; c_real, c_imaginary [H, H]; w_glu [H, 2H],
    which joins w_value and w_gate; b [2H], which joins b_value and b_gate. One bias.

    Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu and De (2023). "Resurrecting Recurrent Neural Networks for Long
    Sequences", equations 5 to 8.
    """
    decay = jnp.exp(parameters["ring"])
    a = jnp.exp(jax.lax.complex(-decay, jnp.exp(parameters["phase"])))[None, None]
    scale = jnp.sqrt(-jnp.expm1(-2 * decay))[None, None]
    b = jax.lax.complex(scale * project(parameters["w_real"]), scale * project(parameters["w_imaginary"]))
    s = solve(jnp.broadcast_to(a, b.shape), b, jax.lax.complex(*carry))
    y = s.real @ parameters["c_real"] - s.imag @ parameters["c_imaginary"] + project(parameters["w_skip"])
    value, gate = jnp.split(y @ parameters["w_glu"] + parameters["b"][None, None], 2, axis=-1)
    gate = jax.nn.sigmoid(gate)
    return ComplexCarry(s[-1].real, s[-1].imag), value * gate, {"gate": gate}


LRU_SHAPES = (
    ("ring", "ring", "H"),
    ("phase", "phase", "H"),
    ("w_real", "input", "D H"),
    ("w_imaginary", "input", "D H"),
    ("w_skip", "input", "D H"),
    ("c_real", "input", "H H"),  # not "recurrent": computed for the whole window, after the recurrence
    ("c_imaginary", "input", "H H"),
    ("w_glu", "input", "H 2H"),
    ("b", "bias", "2H"),
)

PARALLEL_CELLS = {
    "min_gru": ParallelCell(HiddenCarry, min_gru, (("w_x", "input", "D 2H"), ("b", "bias", "2H")), ("update",)),
    "min_lstm": ParallelCell(HiddenCarry, min_lstm, (("w_x", "input", "D 3H"), ("b", "bias", "3H")), ("update",)),
    "lru": ParallelCell(ComplexCarry, lru, LRU_SHAPES, masks=()),
}
