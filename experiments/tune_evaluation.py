"""Tunes the settings of protocols that have some, such as cache, on the validation text. Never reads the test text.

    python launch.py --experiment=tune_evaluation --workdir=RUN --config.evaluation.protocols="('dynamic', 'cache')"

Starts from config.evaluation and tries the values in GRIDS for one key at a time, keeping the best, until no value is
better. Writes tuned.PROTOCOL.json with every score, and prints the command that scores the run with the best settings.
"""

import math
import shlex
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from experiments.pages.markdown import table
from experiments.train import corpus_of
from lm.errors import UserError
from lm.run import Run, open_run
from lm.runs.files import write_json
from lm.scoring.protocols import PROTOCOLS, check_evaluation, evaluate

TEMPERATURE = {"temperature": (0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3)}
CACHE = {
    "cache_window": (100, 500, 2000, 4000),
    "cache_theta": (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0),
    "cache_lambda": (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4),
}
DYNAMIC = {
    "dynamic_rate": (0.0, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2),
    "dynamic_decay": (0.0, 0.0001, 0.001, 0.003, 0.01),
    "dynamic_segment": (5, 10, 20, 50),
}
# Protocol.adapts -> {key of config.evaluation that the protocol reads: values to try}.
GRIDS = {"temperature": TEMPERATURE, "cache": CACHE, "dynamic": DYNAMIC, "both": CACHE | DYNAMIC}


def run(config, workdir, data_dir=None, checkpoint="last"):
    """Returns {protocol: content of its file}: the best settings, their score, and every score."""
    opened = open_run(workdir, checkpoint)
    opened.check_task("--experiment=tune_evaluation", "language_modelling")
    opened.check_config(config)
    protocols = config.evaluation.protocols
    for protocol in protocols:
        if protocol not in PROTOCOLS or not PROTOCOLS[protocol].adapts:
            known = ", ".join(name for name, each in PROTOCOLS.items() if each.adapts)
            raise UserError(f"config.evaluation.protocols: {protocol!r} has no settings to tune; these have: {known}")
    config = ConfigDict(config)
    config.evaluation.splits = ("valid",)
    text, content = corpus_of(opened, config, data_dir).splits["valid"], {}
    check_evaluation(config.evaluation, opened.model, {"valid": text})
    for protocol in protocols:
        found = tune(opened, text, config.evaluation, protocol)
        content[protocol] = {"checkpoint": checkpoint, "step": opened.step, **found}
        write_json(Path(workdir, f"tuned.{protocol}.json"), content[protocol])
        announce(workdir, protocol, found)
    return content


def announce(workdir, protocol: str, found: dict):
    """Prints the ten best settings, a hint for each value at the edge of its grid, and the command for the best."""
    ranked = sorted((row for row in found["tried"] if row["perplexity"] is not None), key=lambda row: row["perplexity"])
    rows = [[_shown(row["settings"]), f"{row['perplexity']:.3f}"] for row in ranked[:10]]
    print(table(["tried", "validation perplexity"], rows))
    for key, values in GRIDS[PROTOCOLS[protocol].adapts].items():
        value = found["settings"][key]
        if value != 0 and not min(values) < value < max(values):
            print(f"config.evaluation.{key}={value} is at the edge of the values tried: a value beyond may be better")
    chosen = "".join(f" --config.evaluation.{key}={value}" for key, value in found["settings"].items())
    print(
        f"{protocol}: perplexity {found['perplexity']:.2f}. To score it:\n  python launch.py --experiment=evaluate "
        f"--workdir={shlex.quote(str(workdir))} --config.evaluation.protocols=\"('{protocol}',)\"{chosen}"
    )


def tune(run: Run, text: np.ndarray, start: ConfigDict, protocol: str) -> dict:
    """Optimises one key after the other until a round over all keys improves nothing.

    Returns the best settings, their validation perplexity, and everything tried, in order, with None for a perplexity
    that is not finite. Raises UserError if no perplexity is finite.
    """
    settings, grid, tried = start.copy_and_resolve_references(), GRIDS[PROTOCOLS[protocol].adapts], {}

    def perplexity(values: tuple) -> float:
        if values not in tried:
            named = dict(zip(grid, values, strict=True))
            settings.update(named)
            found = evaluate(protocol, run.model, run.parameters, text, settings).perplexity
            tried[values] = found if math.isfinite(found) else math.inf  # a gradient step may be too large
            print(f"{protocol} {_shown(named)}: {found:.3f}", flush=True)
        return tried[values]

    best, before = tuple(settings[key] for key in grid), None
    while best != before:
        before = best
        for place, values in enumerate(grid.values()):
            others = [(*best[:place], value, *best[place + 1 :]) for value in values]
            best = min((best, *others), key=perplexity)
    if tried[best] == math.inf:
        raise UserError(f"no settings of protocol {protocol} that were tried give a finite perplexity")
    rows = [
        {"settings": dict(zip(grid, values, strict=True)), "perplexity": found if found < math.inf else None}
        for values, found in tried.items()
    ]
    return {"settings": dict(zip(grid, best, strict=True)), "perplexity": tried[best], "tried": rows}


def _shown(settings: dict) -> str:
    return " ".join(f"{key}={value}" for key, value in settings.items())
