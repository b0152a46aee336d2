"""Parameters of which `make test` tries a few and `make test-all` all."""

from collections.abc import Iterable

import pytest

from lm.cells.table import CELLS


def few(values: Iterable, *quick) -> list:
    """Test parameters: the values of `quick` as they are, the others marked slow. Each of `quick` must be a value."""
    values = list(values)
    assert set(quick) <= set(values)
    return [pytest.param(value, marks=() if value in quick else pytest.mark.slow) for value in values]


# One cell of each kind that the time loop knows: lm/cells/kinds.py.
EACH_CELL = few(CELLS, "lstm", "gru", "min_gru")
LSTM_FIRST = few(CELLS, "lstm")
