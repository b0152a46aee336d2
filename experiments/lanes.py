"""Trains runs of one shape in parallel, as one program. They may differ in seed, learning rate, dropout and the like.

    python launch.py --experiment=lanes --config=configs/text8/lstm_fused.py --lanes='seed=0:16'
    python launch.py --experiment=lanes --config=... --lanes='seed=0:2 optim.learning_rate=5.0,10.0'

--lanes names keys of the config and their values; a:b means a to b - 1. Each combination is one lane, an ordinary run
in WORKDIR/KEY=VALUE,...; run the same command again to resume after a kill.
"""

import itertools
import math
import os
import sys

import ml_collections

from experiments.pages.printed import measures_of
from experiments.train import load_corpus, read_test_of, setup_on
from lm.errors import UserError
from lm.machine.cores import one_device_per_core
from lm.runs.files import write_json
from lm.training.lanes import same_program, train_lanes

MOST_LANES = 1000


def run(config, workdir, data_dir=None, lanes=None):
    """Writes `workdir`/lanes.json, {lane: its summary or error}, and returns its content."""
    names, configs = make_configs(config, lanes or "")
    one_device_per_core()
    corpus = load_corpus(config, data_dir)
    workdirs = [os.path.join(workdir, name) for name in names]
    setups = [setup_on(each, corpus, data_dir) for each in configs]
    outcomes = train_lanes(setups, workdirs, read_test=read_test_of(config, data_dir, corpus))
    found = [{"error": str(each)} if isinstance(each, UserError) else each for each in outcomes]
    report = dict(zip(names, found, strict=True))
    write_json(os.path.join(workdir, "lanes.json"), report)
    for name, outcome in report.items():
        print(f"{name}  {_line(outcome)}")
    if all("error" in outcome for outcome in report.values()):
        raise UserError(f"every lane failed; the first error: {outcomes[0]}")
    for first, second in equal_pairs(report):
        what = "have equal numbers: the keys they differ in have no effect"
        print(f"warning: {first} and {second} {what}", file=sys.stderr)
    return report


def equal_pairs(report: dict) -> list[tuple[str, str]]:
    """Pairs (earlier, later) of lanes with equal scores and loss, such as seeds of a run without randomness."""
    seen, pairs = {}, []
    for name, outcome in report.items():
        if "error" not in outcome:
            numbers = str((outcome["train"]["final_mean_loss"], outcome["results"]))
            if (first := seen.setdefault(numbers, name)) != name:
                pairs.append((first, name))
    return pairs


def _line(outcome: dict) -> str:
    if "error" in outcome:
        return f"failed: {outcome['error']}"
    scores = [
        f"{row['which']} {row['split']} {row['protocol']} {name} {row[name]:.4f}"
        for row in outcome["results"]
        for name in measures_of(row) or ("perplexity",)
    ]
    return "  ".join([f"loss {outcome['train']['final_mean_loss']:.4f}", *scores])


def make_configs(config: ml_collections.ConfigDict, lanes: str) -> tuple[list[str], list[ml_collections.ConfigDict]]:
    """Returns (names, configs) of all combinations of the values in --lanes. Raises UserError if it is invalid."""
    if not lanes.strip():
        raise UserError("--experiment=lanes needs --lanes, such as --lanes='seed=0:4 optim.learning_rate=1.0,2.0'")
    axes: dict[str, list] = {}
    for part in lanes.split():
        key, equals, values = part.partition("=")
        if not equals or not values:
            raise UserError(f"--lanes: {part!r} must be KEY=VALUE,VALUE,... or KEY=FIRST:END")
        if key in axes:
            raise UserError(f"--lanes={lanes} gives values of {key} twice: name each key once")
        axes[key] = _values(config, key, values)
    if math.prod(map(len, axes.values())) > MOST_LANES:
        raise UserError(f"--lanes={lanes} names more than {MOST_LANES} runs: too many to be lanes of one program")
    names, configs = [], []
    for combination in itertools.product(*axes.values()):
        changes = dict(zip(axes, combination, strict=True))
        lane = _changed(config, changes)
        if not same_program(config, lane):
            key = next(key for key in axes if not same_program(config, _changed(config, {key: changes[key]})))
            raise UserError(f"--lanes: runs with different config.{key} cannot share one program; run them separately")
        names.append(",".join(f"{key}={value}" for key, value in changes.items()))
        configs.append(lane)
    if len(set(names)) < len(names):
        raise UserError(f"--lanes={lanes} names the same run twice")
    return names, configs


def _changed(config, changes: dict):
    changed = config.copy_and_resolve_references()
    changed.update_from_flattened_dict(changes)
    return changed


def _values(config: ml_collections.ConfigDict, key: str, text: str) -> list:
    """Parses `text` into values of the key's type. Raises UserError for an unknown key or an invalid value."""
    default = ml_collections.FrozenConfigDict(config)
    for part in key.split("."):
        if not hasattr(default, "keys") or part not in default:
            raise UserError(f"--lanes: there is no config.{key}")
        default = default[part]
    kind = type(default)
    if kind not in (int, float, str):
        raise UserError(f"--lanes: config.{key} must be a number or a name, not {kind.__name__}")
    try:
        if kind is int and ":" in text:
            first, end = (int(x) for x in text.split(":"))
            values = list(range(first, min(end, first + MOST_LANES + 1)))  # one too many, so that the limit is named
        else:
            values = [kind(x) for x in text.split(",")]
    except ValueError:
        values = []
    if not values:
        or_range = ", or FIRST:END" if kind is int else ""
        raise UserError(f"--lanes: {key}={text} must be {kind.__name__}s separated by commas{or_range}")
    return values
