"""What in a record contradicts itself, today's config that claims its numbers, or the other records of its text.

A record is made of numbers that hang together: each can be changed, but not alone.
"""

import json
import math
from collections.abc import Mapping, Sequence

from experiments.ledger.claims import Claim, suits
from experiments.ledger.records import config_today, identity_of, identity_then
from experiments.ledger.runs import Run, run_of
from lm.model.language_model import make_model
from lm.runs.metrics import flat, plain
from lm.runs.provenance import DECIDES_NOTHING, NUMERICS
from lm.scoring.protocols import perplexity, window_shape

# A curve has six significant digits; a score made again in another program agrees to about as many.
ROUNDED, RESCORED = 1e-5, 1e-4

# {(text, split): its tokens}; a text is what `text_of` gives.
Lengths = Mapping[tuple[str, str], int]

UNSOUND = (ValueError, LookupError, TypeError, ArithmeticError, AttributeError)


def inconsistencies(record: dict, claims: Sequence[Claim], lengths: Lengths) -> list[str]:
    """One line for each. lengths: as text_lengths() of all records that are checked together gives them."""
    try:
        wrong = departures(record, claims)
        if wrong:  # what follows asks for today's config
            return wrong
        claim = next(claim for claim in claims if claim.config.name == record["name"])
        run = run_of(claim, record["seed"], record["corpus"])
        return [*wrong_identity(record), *wrong_scores(record), *wrong_curve(record, run),
                *wrong_targets(record, run, lengths)]  # fmt: skip
    except UNSOUND as error:
        return [f"it is no sound record ({type(error).__name__}: {str(error)[:80]})"]


# ----------------------------------------------------------------------------------------- config


def departures(record: dict, claims: Sequence[Claim]) -> list[str]:
    """In what the record is of another run than a claim asks for, by its config, its data or the code's numerics."""
    claim = next((claim for claim in claims if claim.config.name == record["name"]), None)
    if claim is None:
        return [f"no config of experiments/ledger/claims.py has the name {record['name'][:80]!r}"]
    if not suits(claim, record["corpus"]):
        return [f"{claim.path} cannot be run on corpus {record['corpus'][:80]!r}"]
    run = run_of(claim, record["seed"], record["corpus"])
    if identity_of(record) == run.identity:
        return []
    theirs, today = decisive(config_today(record)), decisive(plain(run.config))
    wrong = [
        f"its {key} is {_shown(theirs.get(key))} and {_shown(today.get(key))} in {claim.path}"
        for key in sorted(theirs.keys() | today.keys())
        if theirs.get(key) != today.get(key)
    ]
    if record["provenance"]["numerics"] != NUMERICS:
        wrong.append(f"it is of version {record['provenance']['numerics']} of the numerics, and today's is {NUMERICS}")
    return wrong[:4] or ["its data has another checksum than the corpus has today"]


def decisive(config: dict) -> dict:
    """The keys of a plain config that its identity depends on, dotted."""
    groups = {key: value for key, value in config.items() if key not in ("claim", "targets", "sample")}
    return {key: value for key, value in flat(groups).items() if key not in DECIDES_NOTHING}


def _shown(value) -> str:
    return json.dumps(value)[:40]


def wrong_identity(record: dict) -> list[str]:
    source, wrong = record["provenance"], []
    if (source["config"]["name"], source["config"]["seed"]) != (record["name"], record["seed"]):
        wrong.append("it names another config or seed than its provenance")
    if identity_then(record) != source["identity"]:
        wrong.append("its identity does not follow from its config")
    return wrong


# ----------------------------------------------------------------------------------------- scores


def wrong_scores(record: dict) -> list[str]:
    """What the rows of `results` say of one another, and of themselves."""
    wrong, seen = [], set()
    for row in record["results"]:
        mean, place = row["nats"] / row["targets"], place_of(row)
        stated = math.inf if row["perplexity"] is None else row["perplexity"]  # JSON has no infinity
        if not math.isclose(stated, perplexity(mean), rel_tol=1e-9):
            wrong.append(f"perplexity of {place} does not follow from its nats")
        if not math.isclose(row["bits_per_symbol"], mean / math.log(2), rel_tol=1e-9):
            wrong.append(f"bits per symbol of {place} do not follow from its nats")
        if place in seen:
            wrong.append(f"{place} is there twice")
        seen.add(place)
    return wrong


def place_of(row: dict) -> str:
    return f"{row['which']} {row['split']} under {row['protocol']}"


def wrong_curve(record: dict, run: Run) -> list[str]:
    """What `results` and `train` say otherwise than the training curve."""
    curve, train, wrong = record["curve"], record["train"], []
    if len({len(column) for column in curve.values()}) != 1:
        return ["the columns of its curve differ in length"]
    if train["steps"] != curve["step"][-1] + 1:
        wrong.append(f"it made {train['steps']} steps and its curve ends at step {curve['step'][-1]}")
    for key, column in (("final_mean_loss", "loss"), ("lowest_running_perplexity", "lowest_running_perplexity")):
        if not _close(train.get(key), curve[column][-1], ROUNDED):
            wrong.append(f"its {key} is {train.get(key)} and its curve ends at {curve[column][-1]}")
    for loss, column in (("loss", "perplexity"), ("valid_loss", "valid_perplexity")):
        if not all(map(follows, curve.get(column, []), curve.get(loss, []))):
            wrong.append(f"{column} of its curve does not follow from {loss}")
    if not all(follows(*pair) for pair in epoch_means(curve)):
        wrong.append("epoch_perplexity of its curve does not follow from the losses of the epochs")
    for row in record["results"]:
        if (row["split"], row["protocol"]) == ("valid", run.config.evaluation.during):
            there = dict(zip(curve["step"], curve.get("valid_loss", []), strict=False)).get(row["step"])
            if not _close(row["nats"] / row["targets"], there, RESCORED):
                wrong.append(f"{place_of(row)} is not what its curve has at step {row['step']}")
        if row["which"] == "final" and row["step"] != train["steps"] - 1:
            wrong.append(f"{place_of(row)} is of step {row['step']}, which is not the last")
    return wrong


def epoch_means(curve: dict) -> list[tuple[float, float]]:
    """(epoch_perplexity, mean of the losses since the epoch before) of each epoch's end."""
    found, nats, steps, before = [], 0.0, 0, -1
    for step, loss, stated in zip(curve["step"], curve["loss"], curve.get("epoch_perplexity", []), strict=False):
        nats, steps, before = nats + loss * (step - before), steps + step - before, step
        if stated is not None:
            found.append((stated, nats / steps))
            nats, steps = 0.0, 0
    return found


def follows(stated: float | None, nats: float | None) -> bool:
    """Whether a perplexity is that of mean nats, up to their rounding; JSON has no infinity."""
    if stated is None or nats is None:
        return stated is None and (nats is None or math.isinf(perplexity(nats)))
    return stated > 0 and _close(math.log(stated), nats, ROUNDED)


def _close(a: float | None, b: float | None, tolerance: float) -> bool:
    return a is not None and b is not None and math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)


# ---------------------------------------------------------------------------------------- targets


def text_of(record: dict) -> str:
    """Stands for the text behind a record: checksum and the keys that divide it."""
    data = dict(config_today(record)["data"])
    for key in ("batching", "batch_size", "unroll", "path"):
        del data[key]
    return json.dumps([record["provenance"]["data"].get("checksum", ""), data], sort_keys=True)


def text_lengths(records: Sequence[dict]) -> Lengths:
    """Tokens of every text that a record states. What most of the records say holds."""
    said: dict[tuple[str, str], list[int]] = {}
    for record in records:
        for split, tokens in record["provenance"]["data"].get("tokens", {}).items():
            said.setdefault((text_of(record), split), []).append(tokens)
    return {key: max(values, key=values.count) for key, values in said.items()}


def wrong_targets(record: dict, run: Run, lengths: Lengths) -> list[str]:
    """Rows that score another number of targets than their protocol takes from the text.

    A run whose test text was read for the summary alone states no length of it: where no other record does, all its
    protocols must still be of one length.
    """
    wrong, text, own = [], text_of(record), record["provenance"]["data"].get("tokens", {})
    model = make_model(run.config, 2)  # the size of the vocabulary decides no length
    exact = {row["split"]: row["targets"] + model.context for row in record["results"] if row["protocol"] == "exact"}
    for split, tokens in own.items():
        if tokens != lengths[text, split]:
            wrong.append(f"its {split} text has {tokens} tokens, and {lengths[text, split]} in other records")
    for row in record["results"]:
        tokens = lengths.get((text, row["split"]), exact.get(row["split"]))
        if tokens is None:
            wrong.append(f"nothing says how many tokens its {row['split']} text has")
            continue
        windows, size, batch = window_shape(row["protocol"], model, tokens, run.config.evaluation)
        # The last window of the exact stream is filled up.
        targets = tokens - model.context if row["protocol"] == "exact" else windows * (size - model.context) * batch
        if row["targets"] != targets:
            wrong.append(f"{place_of(row)} scores {row['targets']} targets, and the protocol {targets}")
    if "parameters" in record and run.config.parameters not in (0, record["parameters"]):
        wrong.append(f"it has {record['parameters']} parameters and {run.claim.path} {run.config.parameters}")
    return wrong
