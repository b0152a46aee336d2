"""Finds the value in a record that belongs to a target, and judges the values of all seeds."""

import math
from collections.abc import Mapping, Sequence

from lm.scoring.measures import MEASURES
from lm.scoring.uncertainty import summarize_seeds

VERDICTS = ("reproduced", "better", "worse", "not distinguishable", "not run")
# A value more than this fraction below the reported one is better, not merely reproduced.
CLEARLY = 0.05


def verdict(target: Mapping, values: Sequence[float]) -> str:
    """Compares the values of all seeds with the target's value plus its tolerance.

    not run             there is no value
    worse               the entire 95% interval over seeds is above; with one seed, the value is. Also if a seed has no
                        finite value: it diverged
    not distinguishable the mean is above, but the lower end of the interval is not
    better              the entire interval, or the single value, is more than 5% below the target's value
    reproduced          otherwise: the mean is not above, and not clearly below

    For a measure up to 1, such as accuracy, errors 1 - value are compared; for other measures of labels, -value.
    """
    if not values:
        return "not run"
    if math.inf in values:
        return "worse"
    compared = target["value"]
    if measure := MEASURES.get(target["metric"]):
        best = 1 if measure.highest == 1 else 0
        compared, values = best - compared, [best - value for value in values]
    most, clearly_below = compared + target["tolerance"], compared - CLEARLY * abs(compared)
    seeds, single = summarize_seeds(values), len(values) == 1
    if seeds.mean > most:
        return "worse" if single or seeds.low > most else "not distinguishable"
    return "better" if (seeds.mean if single else seeds.high) < clearly_below else "reproduced"


def is_final(target: Mapping) -> bool:
    """True for a number at the final or best checkpoint; False for a point on the training curve."""
    return target["at"] in ("final", "best")


def measured(target: Mapping, record: dict) -> float | None:
    """The value of a target's metric in a record; None if the run did not measure it. A perplexity that is too large
    for a float is infinite; records hold it as null."""
    metric, train, curve = target["metric"], record["train"], record["curve"]
    if not is_final(target):
        return _curve_value(curve, f"valid_{metric}" if target["split"] == "valid" else metric, target["at"])
    if target["protocol"] == "train" and metric == "perplexity":
        return next(reversed(_perplexities(curve, "epoch_").values()), None)
    if target["protocol"] == "train":
        return train.get("final_mean_loss" if metric == "loss" else metric)
    if score := scored(target, record):
        return score["nats"] / score["targets"] if metric == "loss" else finite_or_infinite(score[metric])
    return None


def finite_or_infinite(value: float | None) -> float:
    return math.inf if value is None else value


def scored(target: Mapping, record: dict) -> dict | None:
    """The record's score with the split, protocol and checkpoint of a target, or None."""
    wanted = (target["split"], target["protocol"], target["at"])
    scores = (row for row in record["results"] if (row["split"], row["protocol"], row["which"]) == wanted)
    return next(scores, None)


def _curve_value(curve: dict, column: str, at: str) -> float | None:
    """The value of a column at "epoch 5" (the end of the fifth) or "step 100" (after step 100, counted from 0)."""
    unit, number = at.split()
    prefix, is_perplexity, _ = column.partition("perplexity")
    values = _perplexities(curve, prefix) if is_perplexity else dict(enumerate(curve.get(column, [])))
    for index, value in values.items():
        if value is not None and math.isclose(curve[unit][index], float(number), abs_tol=1e-6):
            return value
    return None


def _perplexities(curve: dict, prefix: str) -> dict[int, float]:
    """{row: perplexity} of a curve's measured rows; infinite where the loss is finite and the perplexity is null."""
    column = curve.get(f"{prefix}perplexity", [])
    losses = curve.get(f"{prefix}loss", column)
    found = enumerate(zip(column, losses, strict=False))
    return {index: finite_or_infinite(value) for index, (value, loss) in found if (value, loss) != (None, None)}
