"""What a score may measure beside nats. Of every measure, more is better; all other numbers are losses."""

from typing import NamedTuple


class Measure(NamedTuple):
    """How a measure is shown and compared.

    highest: the best possible value; of a share, 1, the errors 1 - value are compared
    panel: title of the panel of curves.png that draws it; label: the name of its line
    """

    highest: float
    panel: str
    label: str


# A score is shown by the first of these that it has.
MEASURES = {
    "f1": Measure(1, "labels", "F1"),
    "accuracy": Measure(1, "labels", "accuracy"),
    "bleu": Measure(100, "BLEU", "BLEU"),
    "sequence_accuracy": Measure(1, "sequences", "sequence accuracy"),
}
