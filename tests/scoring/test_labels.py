"""Entities and their F1, as conlleval counts them; confusion matrices."""

import numpy as np
import pytest

from lm.scoring.labels import MOST_LABELS, are_entities, confusion, entities, entity_scores


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-X I-X O B-Y", {("X", 0, 2), ("Y", 3, 4)}),
        ("B-X B-X", {("X", 0, 1), ("X", 1, 2)}),
        ("I-X I-X I-Y", {("X", 0, 2), ("Y", 2, 3)}),
        ("O I-X B-Y I-X", {("X", 1, 2), ("Y", 2, 3), ("X", 3, 4)}),
        ("PER PER O LOC", {("PER", 0, 2), ("LOC", 3, 4)}),
        ("B-a.b I-a.b", {("a.b", 0, 2)}),
        ("O O", set()),
    ],
)
def test_entities(tags, expected):
    assert entities(tags.split()) == expected


def test_f1_by_hand():
    """2 right of 3 predicted and 4 true: 2 * 2 / 7. X: 1 of 1 and 2; Y: 1 of 2 and 2."""
    true = [["B-X", "I-X", "O", "B-Y", "B-X"], ["B-Y", "O"]]
    predicted = [["B-X", "I-X", "O", "O", "O"], ["B-Y", "B-Y"]]
    found = entity_scores(zip(true, predicted, strict=True))
    assert found == pytest.approx({"f1": 4 / 7, "f1_X": 2 / 3, "f1_Y": 2 / 4})


def test_nothing_found_is_zero():
    assert entity_scores([(["B-X"], ["O"])]) == {"f1": 0.0, "f1_X": 0.0}
    assert entity_scores([(["O"], ["O"])]) == {"f1": 0.0}


@pytest.mark.parametrize(
    ("labels", "answer"),
    [
        (("O", "B-PER", "I-PER"), True),
        (("O", "LOC", "PER"), True),
        (("B-PER", "E-PER", "O", "S-LOC"), False),
        (("DT", "NN", "NNP"), False),
        (("O", "b-PER"), False),
        (("O", "PER-B"), False),
        (("-", "B-PER"), False),
        (("O",), False),
    ],
)
def test_which_labels_mark_entities(labels, answer):
    assert are_entities(labels) == answer


def test_confusion_by_hand():
    true, predicted = np.array([0, 0, 2, 1, 2, 2], np.uint8), np.array([0, 1, 2, 1, 0, 2])
    assert confusion(true, predicted, 4).tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]]
    last = np.array([MOST_LABELS - 1], np.uint8)
    assert confusion(last, last, MOST_LABELS)[-1, -1] == 1
    assert confusion(true, predicted, MOST_LABELS + 1) is None
    assert confusion(true, predicted, 1) is None
