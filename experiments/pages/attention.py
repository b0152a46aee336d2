"""Draws attention weights: how much each written symbol of some pairs attends to each source token."""

from collections.abc import Sequence

import numpy as np

from experiments.pages import new_figure

COLUMNS = 2


def draw_attention(examples: Sequence[dict]):
    """Draws a panel per pair: a row for each written symbol, a column for each source token; darker is more.

    examples: those of a run's record (experiments/ledger/records.py), with attention
    """
    rows = -(-len(examples) // COLUMNS)
    figure = new_figure(7 * COLUMNS, 4.5 * rows)
    for place, example in enumerate(examples, 1):
        panel = figure.add_subplot(rows, COLUMNS, place)
        source, written = example["source"], example["written"]
        panel.imshow(np.array(example["attention"]), cmap="Greys", vmin=0, vmax=1, aspect="auto")
        panel.set_xticks(range(len(source)), [shown(s) for s in source], rotation=60, ha="right", parse_math=False)
        panel.set_yticks(range(len(written)), [shown(s) for s in written], parse_math=False)
        panel.tick_params(labelsize=8)
    return figure


def shown(symbol: str) -> str:
    """The tick label of a symbol; ⏎ for a newline."""
    return symbol.replace("\n", "⏎")
