"""Measures of labels: confusion matrix, and F1 of entities as in conlleval.

An entity is a chunk of tokens with one type: B-X begins it and I-X continues it. As in conlleval, an I-X that does not
continue a chunk of type X begins one. Tags without a prefix, such as PER, are read as I-PER. A predicted entity is
correct if its type, first and last token are correct.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int, Integer

OUTSIDE = "O"
MOST_LABELS = 100  # in a readable confusion matrix


def confusion(
    true: Integer[np.ndarray, " N"], predicted: Integer[np.ndarray, " N"], labels: int
) -> Int[np.ndarray, "C C"] | None:
    """Counts of each pair (true label, predicted label), C = labels. None if C is below 2 or above MOST_LABELS."""
    if not 2 <= labels <= MOST_LABELS:
        return None
    pairs = true.astype(np.int64) * labels + predicted
    return np.bincount(pairs, minlength=labels**2).reshape(labels, labels)


def are_entities(labels: Sequence[str]) -> bool:
    """True if conlleval reads labels as entities: O, B-X and I-X, or O and plain types such as PER.

    Parts of speech have no O, and other schemes, such as BIOES, have other prefixes.
    """
    others = [label for label in labels if label != OUTSIDE]
    if OUTSIDE not in labels or not others:
        return False
    return all(re.fullmatch("[BI]-.+", label) for label in others) or not any("-" in label for label in others)


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Returns (type, first token, token after the last) of every entity in a sentence."""
    found, kind, first = set(), "", 0
    for index, tag in enumerate((*tags, OUTSIDE)):
        prefix, _, rest = tag.partition("-")
        if prefix not in ("B", "I") or not rest:  # a tag without a prefix
            prefix, rest = "I", "" if tag == OUTSIDE else tag
        if kind and (prefix == "B" or rest != kind):
            found.add((kind, first, index))
            kind = ""
        if rest and not kind:
            kind, first = rest, index
    return found


def entity_scores(pairs: Iterable[tuple[Sequence[str], Sequence[str]]]) -> dict[str, float]:
    """Returns {"f1", "f1_X" for each type X} in [0, 1]. pairs: (true, predicted) tags of each sentence."""
    counts: dict[str, list[int]] = {}  # type -> number of correct, predicted and true entities
    for true, predicted in pairs:
        wanted, got = entities(true), entities(predicted)
        for column, group in enumerate((wanted & got, got, wanted)):
            for kind, _, _ in group:
                counts.setdefault(kind, [0, 0, 0])[column] += 1
    total = [sum(column) for column in zip(*counts.values(), strict=True)] or [0, 0, 0]
    return {"f1": f1(*total)} | {f"f1_{kind}": f1(*counts[kind]) for kind in sorted(counts)}


def f1(right: int, predicted: int, true: int) -> float:
    """Harmonic mean of precision and recall: 2 right / (predicted + true). 0 if nothing is right."""
    return 2 * right / (predicted + true) if right else 0.0
