"""Draws confusion matrices of labels: one panel for each checkpoint and split that was scored."""

import numpy as np

from experiments.pages import new_figure

MOST_WITH_COUNTS = 20  # labels; with more, the counts would not fit their cells
COLUMNS = 2


def draw_confusion(confusion: dict):
    """Draws a figure of counts, coloured by their share of the row (the true label).

    confusion: that of a run's record (experiments/ledger/records.py)
    """
    labels, scores = confusion["labels"], confusion["scores"]
    side, size = min(3 + 0.2 * len(labels), 14), 9 if len(labels) <= MOST_WITH_COUNTS else 6
    columns = min(COLUMNS, len(scores))
    rows = -(-len(scores) // columns)
    figure = new_figure(side * columns, side * rows)
    for place, score in enumerate(scores, 1):
        panel = figure.add_subplot(rows, columns, place)
        counts = np.array(score["counts"])
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        panel.set(xlabel="predicted", ylabel="true")
        panel.set_title(f"{score['which']} {score['split']}", fontsize=10)
        panel.set_xticks(range(len(labels)), labels, rotation=90, fontsize=size, parse_math=False)
        panel.set_yticks(range(len(labels)), labels, fontsize=size, parse_math=False)
        if len(labels) <= MOST_WITH_COUNTS:
            for (row, column), count in np.ndenumerate(counts):
                colour = "white" if shares[row, column] > 0.5 else "black"
                panel.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
    return figure
