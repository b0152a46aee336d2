"""Cells whose recurrence is linear, so that a whole window is solved in parallel. Shapes: kinds.py.

One function serves training and sampling: `solve` takes a window of any length, and of one step at once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lm.cells.kinds import Array, HiddenCarry, ParallelCell, Parameters, masked


def min_gru(read, parameters: dict, carry: HiddenCarry, solve, update: Array | None = None) -> tuple:
    """minGRU: a GRU whose gate and candidate do not read the state.

        z = sigmoid(x W_x + b)    g = x W_x + b
        h' = (1 - z) * h + z * g

    Feng et al. 2024 ("Were RNNs all we needed?"), section 3.1; here z lets the new in, unlike in `gru`. All factors
    1 - z lie in (0, 1), so the scan needs no log space (their appendix), which would bind g to positive values.
    Gates z, g: W_x [D, 2H], b [2H].
    """
    z, g = jnp.split(read(parameters["w_x"]) + parameters["b"][None, None], 2, axis=-1)
    z = jax.nn.sigmoid(z)
    h = solve(1 - z, z * masked(update, g), carry.h)
    return HiddenCarry(h[-1]), h


def min_gru_parameters(inputs: int, units: int) -> Parameters:
    """Shapes of `min_gru`."""
    return {"w_x": ("input", (inputs, 2 * units)), "b": ("bias", (2 * units,))}


def min_lstm(read, parameters: dict, carry: HiddenCarry, solve, update: Array | None = None) -> tuple:
    """minLSTM: gates that do not read the state, normalised to sum to 1.

        i = sigmoid(z_i)    f = sigmoid(z_f)    g = z_g      z = x W_x + b
        h' = (f * h + i * g) / (f + i)

    Feng et al. 2024, section 3.2 (the time-independent scale). Gates i, f, g: W_x [D, 3H], b [3H].
    """
    z_i, z_f, g = jnp.split(read(parameters["w_x"]) + parameters["b"][None, None], 3, axis=-1)
    # f / (f + i) = sigmoid(log f - log i), which is safe where both underflow
    f = jax.nn.sigmoid(jax.nn.log_sigmoid(z_f) - jax.nn.log_sigmoid(z_i))
    h = solve(f, (1 - f) * masked(update, g), carry.h)
    return HiddenCarry(h[-1]), h


def min_lstm_parameters(inputs: int, units: int) -> Parameters:
    """Shapes of `min_lstm`."""
    return {"w_x": ("input", (inputs, 3 * units)), "b": ("bias", (3 * units,))}


class ComplexCarry(NamedTuple):
    """The complex state of an LRU as two real arrays, each [B, H]."""

    real: Array
    imaginary: Array


def lru(read, parameters: dict, carry: ComplexCarry, solve) -> tuple:
    """Linear recurrent unit: a complex diagonal recurrence, then a gated linear unit.

        a = exp(-exp(ring) + 1j exp(phase))                       complex [H], |a| < 1
        s' = a * s + sqrt(1 - |a|^2) * (x W_real + 1j x W_imaginary)
        y = Re(s' (C_real + 1j C_imaginary)) + x W_skip
        h = (y W_value + b_value) * sigmoid(y W_gate + b_gate)

    Orvieto et al. 2023, eqs. 5-8; the factor sqrt(1 - |a|^2) follows a, while theirs is learned from there on. The
    last line is their block's GLU, the layer's only non-linearity, without their normalisation and skip connection.
    The paper draws a on a ring: config.init.ring = ("lru_ring", least |a|, greatest |a|), config.init.phase =
    ("lru_phase", greatest angle). W_* [D, H]; C_*, W_value, W_gate [H, H], fused as w_glu [H, 2H].
    """
    decay = jnp.exp(parameters["ring"])
    a = jnp.exp(jax.lax.complex(-decay, jnp.exp(parameters["phase"])))[None, None]
    scale = jnp.sqrt(-jnp.expm1(-2 * decay))[None, None]
    b = jax.lax.complex(scale * read(parameters["w_real"]), scale * read(parameters["w_imaginary"]))
    s = solve(jnp.broadcast_to(a, b.shape), b, jax.lax.complex(*carry))
    y = s.real @ parameters["c_real"] - s.imag @ parameters["c_imaginary"] + read(parameters["w_skip"])
    value, gate = jnp.split(y @ parameters["w_glu"] + parameters["b"][None, None], 2, axis=-1)
    return ComplexCarry(s[-1].real, s[-1].imag), value * jax.nn.sigmoid(gate)


def lru_parameters(inputs: int, units: int) -> Parameters:
    """Shapes of `lru`. No matrix is recurrent: all read what is known for the whole window."""
    return {
        "ring": ("ring", (units,)),
        "phase": ("phase", (units,)),
        "w_real": ("input", (inputs, units)),
        "w_imaginary": ("input", (inputs, units)),
        "w_skip": ("input", (inputs, units)),
        "c_real": ("input", (units, units)),
        "c_imaginary": ("input", (units, units)),
        "w_glu": ("input", (units, 2 * units)),
        "b": ("bias", (2 * units,)),
    }


PARALLEL_CELLS = {
    "min_gru": ParallelCell(HiddenCarry, min_gru, min_gru_parameters),
    "min_lstm": ParallelCell(HiddenCarry, min_lstm, min_lstm_parameters),
    "lru": ParallelCell(ComplexCarry, lru, lru_parameters, masks=()),
}
