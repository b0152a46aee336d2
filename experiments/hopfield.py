"""Stores patterns in a Hopfield network, recalls them from corrupted starts, and measures how much it can store.

    python launch.py --experiment=hopfield
    python launch.py --experiment=hopfield --patterns='faces/*.png' --flip=0.3 --workdir=runs/faces

The patterns are six digits, or those of --patterns: text files that draw patterns with characters, separated by empty
lines (space, dot, 0 and - are off), or images of one size. --flip: the probability of flipping each unit in the start.

Writes hopfield.json and two pictures to the workdir. recall.png: patterns, starts, what each rule recalls, and the
energy. capacity.png: errors of one update, and the final overlap with the pattern, against the number of random
patterns per unit, with the theory for large networks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pages import new_figure, png_of
from experiments.pages.markdown import table
from lm.data.patterns import load_patterns
from lm.errors import UserError
from lm.model import hopfield
from lm.runs.files import make_own_directory, write_bytes, write_json
from lm.scoring.uncertainty import summarize_seeds

UPDATES = 20
BETA = 1.0
# Load (patterns per unit) -> error probability in Hertz, Krogh and Palmer (1991), table 2.1.
LOADS = {0.105: 0.001, 0.138: 0.0036, 0.185: 0.01, 0.37: 0.05, 0.61: 0.1}
ERROR_UNITS, ERROR_DRAWS = 2000, 10
CAPACITY_LOADS = (0.05, 0.08, 0.1, 0.11, 0.12, 0.125, 0.13, 0.135, 0.14, 0.145, 0.15, 0.155, 0.16, 0.17, 0.18, 0.2)
CAPACITY_UNITS, CAPACITY_DRAWS, STARTS, SWEEPS = 1000, 8, 20, 30


class Recall(NamedTuple):
    """States [steps + 1, patterns, units] and their energies [steps + 1, patterns] under one rule."""

    states: np.ndarray
    energy: np.ndarray


def run(config, workdir, data_dir=None, patterns="", flip=0.2):
    """Returns the content of hopfield.json."""
    if not 0 <= flip <= 0.5:
        raise UserError(f"--flip={flip} must be between 0 and 0.5: above, the start is nearer to the inverted pattern")
    images = load_patterns(patterns)
    stored = images.reshape(len(images), -1)
    key = jax.random.key(0)
    start = stored * np.asarray(jnp.where(jax.random.bernoulli(key, flip, stored.shape), -1.0, 1.0))
    recalls = recall(stored, start, key)
    content = {"recall": wrong_bits(stored, start, recalls), "errors": errors(key), "capacity": capacity(key)}
    print_tables(content)
    directory = make_own_directory(workdir, "hopfield.json", "recall.png", "capacity.png")
    write_json(directory / "hopfield.json", content)
    write_bytes(directory / "recall.png", draw_recall(images, start, recalls))
    write_bytes(directory / "capacity.png", draw_capacity(content))
    print(f"wrote hopfield.json, recall.png and capacity.png to {directory}")
    return content


def recall(stored: np.ndarray, start: np.ndarray, key) -> dict[str, Recall]:
    """Recalls from the starts [patterns, units] under each rule. Returns {rule: Recall}."""
    x, a = jnp.asarray(stored), jnp.asarray(start)
    weights, states = hopfield.hebb(x), {}
    for rule in ("sign", "satlins"):
        states[f"{rule}, together"] = hopfield.recall_together(weights, a, rule, UPDATES)
        states[f"{rule}, in turn"] = hopfield.recall_in_turn(weights, a, rule, UPDATES, key)
    found = {name: Recall(np.asarray(s), np.asarray(hopfield.energy(weights, s))) for name, s in states.items()}
    modern = hopfield.recall_by_softmax(x, a, BETA, UPDATES)
    return found | {"softmax": Recall(np.asarray(modern), np.asarray(hopfield.softmax_energy(x, modern, BETA)))}


def wrong_bits(stored: np.ndarray, start: np.ndarray, recalls: dict[str, Recall]) -> list[dict]:
    """A row per pattern: number of units that differ in sign, at the start and after recall under each rule."""
    states = {"start": start} | {name: each.states[-1] for name, each in recalls.items()}
    counts = {name: (np.sign(state) != stored).sum(axis=1) for name, state in states.items()}
    return [{"pattern": p, **{name: int(each[p]) for name, each in counts.items()}} for p in range(len(stored))]


def random_patterns(key, load: float, units: int) -> jax.Array:
    return jax.random.rademacher(key, (round(load * units), units), jnp.float32)


def errors(key) -> list[dict]:
    """A row per load of LOADS: the fraction of a stored pattern's bits that one update flips, as measured (mean and
    interval over networks), in theory, and in the textbook."""
    rows = []
    for number, (load, textbook) in enumerate(LOADS.items()):
        keys = jax.random.split(jax.random.fold_in(key, number), ERROR_DRAWS)
        rates = [float(_error_rate(random_patterns(each, load, ERROR_UNITS))) for each in keys]
        rows.append({"load": load, **_interval(rates), "theory": hopfield.bit_error(load), "textbook": textbook})
    return rows


@jax.jit
def _error_rate(patterns):
    return jnp.mean(hopfield.activate("sign", patterns @ hopfield.hebb(patterns), patterns) != patterns)


def capacity(key) -> list[dict]:
    """A row per load of CAPACITY_LOADS: the overlap (mean product) of final states with their patterns."""
    rows = []
    for number, load in enumerate(CAPACITY_LOADS):
        overlaps = []
        for each in jax.random.split(jax.random.fold_in(key, 1000 + number), CAPACITY_DRAWS):
            patterns = random_patterns(each, load, CAPACITY_UNITS)
            starts = patterns[:STARTS]
            states = hopfield.recall_in_turn(hopfield.hebb(patterns), starts, "sign", SWEEPS, each)
            overlaps.append(float(jnp.mean(states[-1] * starts)))
        rows.append({"load": load, **_interval(overlaps)})
    return rows


def _interval(values: list[float]) -> dict:
    found = summarize_seeds(values)
    return {"mean": found.mean, "interval": [found.low, found.high]}


def print_tables(content: dict):
    print(table(list(content["recall"][0]), [list(row.values()) for row in content["recall"]]))
    print("bits that differ from the pattern, at the start and after recall\n")
    for title, rows in (("bits flipped by one update", content["errors"]), ("final overlap", content["capacity"])):
        shown = [[f"{value:.5g}" for value in _flat(row).values()] for row in rows]
        print(f"{title}, random patterns\n{table(list(_flat(rows[0])), shown)}\n")


def _flat(row: dict) -> dict:
    low, high = row["interval"]
    rest = {name: value for name, value in row.items() if name not in ("mean", "interval", "load")}
    return {"patterns per unit": row["load"], "mean": row["mean"], "low": low, "high": high, **rest}


def draw_recall(images: np.ndarray, start: np.ndarray, recalls: dict[str, Recall]) -> bytes:
    """Draws a row per pattern (at most twelve): the pattern, its start, what each rule recalls; below, the energies."""
    shown = min(len(images), 12)
    columns = {"pattern": images.reshape(len(images), -1), "start": start}
    columns |= {name: each.states[-1] for name, each in recalls.items()}
    figure = new_figure(1.3 * len(columns), 1.4 * shown + 3)
    grid = figure.add_gridspec(shown + 2, len(columns))
    for column, (name, states) in enumerate(columns.items()):
        for row in range(shown):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(states[row].reshape(images.shape[1:]), cmap="gray_r", vmin=-1, vmax=1)
            axes.set(xticks=[], yticks=[])
            if row == 0:
                axes.set_title(name.replace(", ", "\n"), fontsize=9)
        if name in recalls:
            axes = figure.add_subplot(grid[shown:, column])
            axes.plot(recalls[name].energy[:, :shown], linewidth=1)
            axes.set_xlabel("updates", fontsize=8)
            axes.tick_params(labelsize=6)
            axes.set_title("energy", fontsize=8)
    return png_of(figure)


def draw_capacity(content: dict) -> bytes:
    figure = new_figure(11, 4.2)
    left, right = figure.subplots(1, 2)
    loads = np.linspace(0.08, 0.7, 200)
    left.semilogy(loads, [hopfield.bit_error(load) for load in loads], label="theory", color="gray")
    right.plot(*hopfield.overlap_curve(), label="theory, to the capacity of 0.138", color="gray")
    for axes, rows in ((left, content["errors"]), (right, content["capacity"])):
        means = np.array([row["mean"] for row in rows])
        spread = np.abs(np.array([row["interval"] for row in rows]).T - means)
        axes.errorbar([row["load"] for row in rows], means, spread, fmt="o", markersize=4, label="measured")
        axes.set(xlabel="patterns per unit")
        axes.legend()
        axes.grid(alpha=0.3)
    left.set(title="share of bits that one update flips")
    right.set(title="overlap of the final state with the pattern", xlim=(0.04, 0.21), ylim=(0, 1.05))
    return png_of(figure)
