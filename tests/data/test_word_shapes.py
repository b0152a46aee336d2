"""Shapes of words, by hand."""

import pytest

from lm.data.word_shapes import SHAPES, shape_of, shapes_of

WORDS = {
    "lower": ("film", "de", "'s", "co-op", "straße", "日本"),
    "initial": ("Germany", "A", "J.", "Öl", "'Tis", "Anglo-french"),
    "upper": ("EU", "U.S.", "AL-AIN"),
    "mixed": ("McLaren", "iPod", "Anglo-French"),
    "number": ("1996-08-22", "F1", "3rd", "٣"),
    "other": (".", "--", "$", ""),
}


def test_the_table_names_every_shape():
    assert tuple(WORDS) == SHAPES


@pytest.mark.parametrize("shape", SHAPES)
def test_words_of_each_shape(shape):
    assert {word: shape_of(word) for word in WORDS[shape]} == dict.fromkeys(WORDS[shape], shape)
    assert shapes_of(WORDS[shape]) == bytes([SHAPES.index(shape)] * len(WORDS[shape]))
