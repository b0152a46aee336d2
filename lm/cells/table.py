"""The CELLS table, which names every cell, and the cells of the first recurrent networks.

A new cell is a function with its equations and an entry in a table: here, in lstm.py, gru.py or
parallel.py, or in a new file whose table joins CELLS below. What it must state: kinds.py.
"""

import functools

import jax
import jax.numpy as jnp
import ml_collections

from lm.cells.gru import GRU_CELLS
from lm.cells.kinds import (
    Array,
    Cell,
    HiddenCarry,
    LSTMCarry,
    ParallelCell,
    Parameters,
    PointwiseCell,
    StepCell,
    masked,
    zero_carry,
)
from lm.cells.lstm import LSTM_CELLS, fuse_lstm, lstm_projection_cell, mogrifier_cell
from lm.cells.parallel import PARALLEL_CELLS
from lm.errors import UserError, lookup

__all__ = [
    "CELLS", "Cell", "HiddenCarry", "LSTMCarry", "ParallelCell", "PointwiseCell", "StepCell", "check_bias",
    "fuse_lstm", "make_cell", "zero_carry",
]  # fmt: skip


# --- Simple recurrent networks --------------------------------------------------------------------------------------


def elman(activation, z_x: Array, z_h: Array, carry: HiddenCarry, vectors: dict) -> HiddenCarry:
    """The simple recurrent network.

        h' = activation(x W_x + h W_h + b)

    Elman 1990; the lecture's "basic RNN" is the one with tanh. The activation is in the cell's name: sigmoid, tanh or
    relu (as in Le et al. 2015). W_x [D, H], W_h [H, H], b [H].
    """
    del carry, vectors
    return HiddenCarry(activation(z_x + z_h))


def elman_two_biases(z_x: Array, z_h: Array, carry: HiddenCarry, vectors: dict) -> HiddenCarry:
    """The sigmoid network of Grokking Deep Learning, ch. 14 (Trask 2019), which adds a bias to each of its products.

        h' = sigmoid(x W_x + b + h W_h + b_h)

    The same functions as `elman_sigmoid`, but each of the biases takes the whole gradient, so their sum learns at
    twice the rate. torch.nn.RNN has two biases too. W_x [D, H], W_h [H, H], b [H], b_h [H].
    """
    del carry
    return HiddenCarry(jax.nn.sigmoid(z_x + z_h + vectors["b_h"][None]))


def jordan(product, z_x: Array, carry: HiddenCarry, vectors: dict, hidden=None) -> HiddenCarry:
    """Jordan network: what feeds back is the output y, a layer above the hidden one.

        u = sigmoid(x W_x + y W_h + b)
        y' = sigmoid(u W_y + b_y)

    Jordan 1986; as the lecture on recurrent networks prints it, where u is called h. Here y [B, H] is the layer's
    output, on which the model's softmax stands, and hence the carry's field h; u is as wide. Fed back are neither the
    softmax's probabilities nor its choice. W_x [D, H], W_h [H, H], b [H], W_y [H, H], b_y [H].
    """
    u = jax.nn.sigmoid(z_x + product("w_h", masked(hidden, carry.h)))
    return HiddenCarry(jax.nn.sigmoid(product("w_y", u) + vectors["b_y"][None]))


def jordan_parameters(inputs: int, units: int) -> Parameters:
    """Shapes of `jordan`."""
    return {
        "w_x": ("input", (inputs, units)),
        "w_h": ("recurrent", (units, units)),
        "b": ("bias", (units,)),
        "w_y": ("recurrent", (units, units)),
        "b_y": ("bias", (units,)),
    }


ELMAN_CELLS = {
    f"elman_{name}": PointwiseCell(HiddenCarry, 1, functools.partial(elman, activation), masks=("hidden",))
    for name, activation in (("sigmoid", jax.nn.sigmoid), ("tanh", jnp.tanh), ("relu", jax.nn.relu))
}


# --- The table ------------------------------------------------------------------------------------------------------


def projected(model: ml_collections.ConfigDict) -> Cell:
    """`lstm_projection` as the config's model part sizes it."""
    if not 0 < model.projection < 2**31:
        raise UserError(f"config.model.projection must be positive and below 2^31 with config.model.cell={model.cell}, "
                        f"not {model.projection}")  # fmt: skip
    return lstm_projection_cell(model.projection)


def mogrified(model: ml_collections.ConfigDict) -> Cell:
    """`mogrifier` with the rounds of the config's model part."""
    if not 0 <= model.mogrifier_rounds <= 100:  # each is compiled for itself; the paper found 5 to 6 the best
        raise UserError(f"config.model.mogrifier_rounds must be between 0 and 100, not {model.mogrifier_rounds}")
    return mogrifier_cell(model.mogrifier_rounds)


# Name (config.model.cell) -> the cell, or a function that makes it from config.model.
CELLS = {
    **ELMAN_CELLS,
    "elman_sigmoid_two_biases": PointwiseCell(HiddenCarry, 1, elman_two_biases, (("b_h", "bias"),), masks=("hidden",)),
    "jordan": StepCell(HiddenCarry, jordan, jordan_parameters, masks=("hidden",)),
    **LSTM_CELLS,
    "lstm_projection": projected,
    "mogrifier": mogrified,
    **GRU_CELLS,
    **PARALLEL_CELLS,
}


def make_cell(model: ml_collections.ConfigDict) -> Cell:
    """The cell of `config.model`. Raises UserError for an unknown name, or a setting out of range."""
    entry = lookup(CELLS, model.cell, "config.model.cell")
    return entry(model) if callable(entry) else entry


def check_bias(cell: Cell, initialiser: tuple):
    """Raises UserError for config.init.bias = ("lstm_bias", forget) where biases are not one [4H], gates i, f, g, o."""
    shapes = [shape for role, shape in cell.parameters(1, 1).values() if role == "bias"]
    if initialiser[0] == "lstm_bias" and shapes != [(4,)]:
        raise UserError("config.init.bias: lstm_bias fits cells with one bias for the gates i, f, g, o, such as lstm; "
                        "config.model.cell is not one of them")  # fmt: skip
