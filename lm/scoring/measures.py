"""Measures that a score may have beside nats. For measures, higher is better; for nats and perplexity, lower."""

from typing import NamedTuple


class Measure(NamedTuple):
    """How a measure is shown and compared.

    highest: the best possible value; if it is 1, the errors 1 - value are compared
    panel: title of its panel in curves.png; label: name of its line
    reads: keys of config.evaluation that affect the value; `compare` keeps values with other settings apart
    """

    highest: float
    panel: str
    label: str
    reads: tuple[str, ...] = ()


# Pages and records show the first of these measures that a score has.
MEASURES = {
    "f1": Measure(1, "labels", "F1"),
    "accuracy": Measure(1, "labels", "accuracy"),
    "bleu": Measure(100, "BLEU", "BLEU", ("target_length",)),
    "sequence_accuracy": Measure(1, "sequences", "sequence accuracy", ("target_length",)),
}
