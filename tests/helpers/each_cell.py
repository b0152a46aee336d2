"""Every cell as a parameter of a test: those of QUICK stand for their kinds in the quick tests, the others are slow."""

import pytest

from lm.cells.table import CELLS

QUICK = ("elman_tanh", "lstm", "lstm_projection", "gru", "slstm", "min_gru", "lru")
EACH_CELL = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CELLS]
