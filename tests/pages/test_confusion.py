"""The picture of a confusion matrix."""

from experiments.pages import png_of
from experiments.pages.confusion import MOST_WITH_COUNTS, draw_confusion

ODD = "$\\frac{B-</a>"  # neither TeX nor HTML


def matrix(labels, *tables):
    scores = [{"which": "final", "split": f"s{n}", "counts": counts} for n, counts in enumerate(tables)]
    return {"labels": labels, "scores": scores}


def test_rows_are_true_labels_and_columns_predicted_ones():
    counts = [[3, 1], [0, 0]]
    figure = draw_confusion(matrix(["a", ODD], counts, [[0, 2], [5, 0]], counts))
    panels = [panel for panel in figure.axes if panel.get_visible()]
    assert [panel.get_title() for panel in panels] == ["final s0", "final s1", "final s2"]
    first = panels[0]
    shown = {text.get_position(): text.get_text() for text in first.texts}
    assert shown == {(0, 0): "3", (1, 0): "1", (0, 1): "0", (1, 1): "0"}
    assert first.images[0].get_array().tolist() == [[0.75, 0.25], [0, 0]]
    for axis in (first.xaxis, first.yaxis):
        assert [label.get_text() for label in axis.get_ticklabels()] == ["a", ODD]
    assert (first.get_xlabel(), first.get_ylabel()) == ("predicted", "true")
    assert png_of(figure).startswith(b"\x89PNG")


def test_many_labels_are_drawn_without_counts():
    count = MOST_WITH_COUNTS + 1
    figure = draw_confusion(matrix(list(map(str, range(count))), [[1] * count] * count))
    assert not figure.axes[0].texts
