"""The shape of a word: its case, or whether it is a number or punctuation. Unknown words have a shape too.

Source: Collobert et al. (2011). "Natural Language Processing (Almost) from Scratch", whose capitalisation feature has
the first four values. `number` and `other` are added here.

lower    no capital: film, de
initial  only the first letter is a capital: Germany, A, J.
upper    all letters are capitals: EU, U.S.
mixed    other capitals: McLaren, iPod
number   a digit: 1996-08-22, F1
other    neither letter nor digit: ., --
"""

from collections.abc import Iterable

SHAPES = ("lower", "initial", "upper", "mixed", "number", "other")


def shape_of(word: str) -> str:
    """The shape of a word, one of SHAPES."""
    if any(character.isdigit() for character in word):
        return "number"
    letters = "".join(filter(str.isalpha, word))
    if not letters:
        return "other"
    if letters == letters.lower():
        return "lower"
    if letters[1:] == letters[1:].lower():
        return "initial"
    return "upper" if letters == letters.upper() else "mixed"


def shapes_of(words: Iterable[str]) -> bytes:
    """The index in SHAPES of each word's shape, a byte each."""
    return bytes(SHAPES.index(shape_of(word)) for word in words)
