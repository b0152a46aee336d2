"""The CELLS table of all cells by name, and its look-up.

To add a cell, write a function with its equations and add it to the table of its family: elman.py, lstm.py, gru.py,
normalised.py or parallel.py. For a new family, add a file, and its table to CELLS. kinds.py lists the fields of a cell.
"""

import ml_collections

from lm.cells.elman import ELMAN_CELLS, jordan_softmax_cell
from lm.cells.gru import GRU_CELLS
from lm.cells.kinds import Cell
from lm.cells.lstm import LSTM_CELLS, lstm_projection_cell, mogrifier_cell
from lm.cells.normalised import NORMALISED_CELLS
from lm.cells.parallel import PARALLEL_CELLS
from lm.errors import UserError, check_name, lookup


def projection_of(model: ml_collections.ConfigDict) -> Cell:
    """LSTM whose output is projected to config.model.projection numbers."""
    if not model.projection:
        raise UserError(f"config.model.projection must be at least 1 with config.model.cell={model.cell}, not 0")
    return lstm_projection_cell(model.projection)


def jordan_softmax_of(model: ml_collections.ConfigDict) -> Cell:
    """Jordan network that feeds back config.model.projection softmax probabilities (0: one per unit)."""
    return jordan_softmax_cell(model.projection)


def mogrifier_of(model: ml_collections.ConfigDict) -> Cell:
    """LSTM whose input and state gate each other before each step, in config.model.mogrifier_rounds rounds."""
    return mogrifier_cell(model.mogrifier_rounds)


# Name (config.model.cell) -> the cell, or a function that makes it from config.model.
CELLS = {
    **ELMAN_CELLS,
    "jordan_softmax": jordan_softmax_of,
    **LSTM_CELLS,
    "lstm_projection": projection_of,
    "mogrifier": mogrifier_of,
    **GRU_CELLS,
    **NORMALISED_CELLS,
    **PARALLEL_CELLS,
}


def make_cell(model: ml_collections.ConfigDict) -> Cell:
    """Returns the cell of config.model. Raises UserError for lstm_projection with config.model.projection=0."""
    entry = lookup(CELLS, model.cell, "config.model.cell")
    return entry if isinstance(entry, Cell) else entry(model)


def check_roles(cell: Cell, init: ml_collections.ConfigDict):
    """Raises UserError if config.init has no initialiser for the role of one of the cell's parameters."""
    for name, (role, _) in cell.parameters(1, 1).items():
        check_name(role, init, f"the role of the cell's parameter {name}, a key of config.init")


def check_bias(cell: Cell, initialiser: tuple):
    """Raises UserError if config.init.bias is lstm_bias and the cell lacks a single bias for gates i, f, g, o."""
    shapes = [shape for role, shape in cell.parameters(1, 1).values() if role == "bias"]
    if initialiser[0] == "lstm_bias" and shapes != [(4,)]:
        raise UserError(
            "config.init.bias: lstm_bias fits cells with one bias for the gates i, f, g, o, such as lstm; "
            "config.model.cell is not one of them"
        )
