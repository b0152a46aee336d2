"""Which value of a record answers a target, and the verdict on the values of all seeds."""

import math
from collections.abc import Mapping, Sequence

from lm.scoring.uncertainty import summarize_seeds

VERDICTS = ("reproduced", "better", "worse", "not distinguishable", "not run")
# A value this much below the reported one is better, no longer the same number.
CLEARLY = 0.05


def verdict(target: Mapping, values: Sequence[float]) -> str:
    """Compares the values of all seeds with the target's value, to which its tolerance is added.

    not run             there is no value
    worse               the whole 95% interval over seeds is above; with one seed, the value is
    not distinguishable the mean is above, but the interval reaches down to the reported value
    better              the whole interval, or the single value, is more than 5% below
    reproduced          otherwise: the mean is at most the reported value, and not clearly below it
    """
    if not values:
        return "not run"
    most, clearly_below = target["value"] + target["tolerance"], (1 - CLEARLY) * target["value"]
    seeds, single = summarize_seeds(values), len(values) == 1
    if seeds.mean > most:
        return "worse" if single or seeds.low > most else "not distinguishable"
    return "better" if (seeds.mean if single else seeds.high) < clearly_below else "reproduced"


def measured(target: Mapping, record: dict) -> float | None:
    """The value of a target's metric in a record; None if the run did not measure it."""
    if target["at"] in ("final", "best"):
        if target["protocol"] == "train":
            return _final_training_value(target["metric"], record)
        score = scored(target, record)
        if score is None:
            return None
        return score["nats"] / score["targets"] if target["metric"] == "loss" else score[target["metric"]]
    column = f"valid_{target['metric']}" if target["split"] == "valid" else target["metric"]
    return _curve_value(record["curve"], column, target["at"])


def scored(target: Mapping, record: dict) -> dict | None:
    """The record's score with the split, protocol and checkpoint of a target, or None."""
    wanted = (target["split"], target["protocol"], target["at"])
    scores = (row for row in record["results"] if (row["split"], row["protocol"], row["which"]) == wanted)
    return next(scores, None)


def _final_training_value(metric: str, record: dict) -> float | None:
    if metric == "loss":
        return record["train"]["final_mean_loss"]
    if metric == "perplexity":
        present = [value for value in record["curve"].get("epoch_perplexity", []) if value is not None]
        return present[-1] if present else None
    return record["train"].get(metric)


def _curve_value(curve: dict, column: str, at: str) -> float | None:
    """The value of a column at "epoch 5" (the end of the fifth) or "step 100" (after step 100, counted from 0)."""
    unit, number = at.split()
    for place, value in zip(curve[unit], curve.get(column, []), strict=False):
        if value is not None and math.isclose(place, float(number), abs_tol=1e-6):
            return value
    return None
