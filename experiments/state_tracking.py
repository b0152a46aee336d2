"""Tests which cells track a state: trains each cell on four tasks, and tests it on texts six times as long.

    python launch.py --experiment=state_tracking
    python launch.py --experiment=state_tracking --cells=lstm,min_gru --workdir=runs/two

lm/data/state_tracking.py defines the tasks, and configs/state_tracking.py the settings. The SEEDS seeds of each cell
and task train as lanes of one program in WORKDIR/CELL/TASK. Run the same command again to resume after an interruption.
Writes state_tracking.json and two pictures: the accuracy of each cell and task on texts of 40 to 256 symbols, and how
far gradients reach back in each cell before and after training on parity.
"""

import contextlib
import io
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from configs import state_tracking
from experiments import lanes
from experiments.gradients import STEPS, carry_gradient_norms, plot
from experiments.pages import new_figure, png_of
from experiments.pages.markdown import table
from lm.cells.table import CELLS
from lm.data.state_tracking import STATE_TASKS
from lm.errors import UserError, check_name
from lm.run import open_run
from lm.runs.files import make_directory, write_bytes, write_json
from lm.scoring.uncertainty import summarize_seeds

SEEDS = 3
SOLVED = 0.99
# config.model.projection of cells whose output size is not the hidden size.
PROJECTIONS = {"lstm_projection": 16}
LEFT_OUT = ("jordan_softmax",)  # excluded because its output is a softmax, not a hidden state
REACH = "parity"  # gradients are drawn for this task: every symbol matters, however long ago it was read


def run(config, workdir, data_dir=None, cells=""):
    """Returns the content of state_tracking.json. cells: names separated by commas; empty: all"""
    names = list(dict.fromkeys(cells.split(","))) if cells else [name for name in CELLS if name not in LEFT_OUT]
    for name in names:
        check_name(name, sorted(CELLS.keys() - set(LEFT_OUT)), "--cells")
    workdir, rows = make_directory(workdir), []
    for cell, task in itertools.product(names, STATE_TASKS):
        rows.append({"cell": cell, "task": task, **measure(cell, task, workdir / cell / task, data_dir)})
        shown = ", ".join(f"{value:.4f}" for value in rows[-1]["values"])
        print(f"{cell} {task}: accuracy {shown}", flush=True)
    found = {cell: reach(workdir / cell / REACH / "seed=0") for cell in names}
    content = {"seeds": SEEDS, "solved": SOLVED, "rows": rows, "reach": found}
    print(table(*as_table(rows)))
    write_json(workdir / "state_tracking.json", content)
    write_bytes(workdir / "state_tracking.png", png_of(draw(rows)))
    panels = {f"{when} training on {REACH}": {c: found[c][when] for c in names} for when in ("before", "after")}
    write_bytes(workdir / "reach.png", plot(panels))
    print(f"wrote state_tracking.json, state_tracking.png and reach.png to {workdir}")
    return content


def reach(directory: Path, batch: int = 16) -> dict[str, list[float]]:
    """Computes |d m / d h_t| of a run's layer before and after training, for the STEPS states before the last one,
    averaged over `batch` texts. m is the difference of the two logits after the last symbol. Unlike the gradient of
    the loss, that of m does not vanish if the model is certain."""
    run = open_run(directory)
    draw = np.random.default_rng(0)
    texts = [STATE_TASKS[REACH].draw(draw, STEPS + 1)[0] for _ in range(batch)]
    tokens = jnp.asarray(np.stack(texts, axis=1))
    norms = {}
    for when, parameters in {"before": run.model.draw(jax.random.key(0)), "after": run.parameters}.items():
        margin = parameters["output_kernel"] @ jnp.array([-1.0, 1.0])
        arguments = (parameters["layer_0"], parameters["embedding"][tokens], lambda _, y, m=margin: (y @ m).sum())
        values = carry_gradient_norms(run.model.cell, run.config.model.hidden[0], *arguments)
        norms[when] = [float(f"{value:.3g}") for value in values[:-1]]  # no step reads the last state
    return norms


def measure(cell: str, task: str, directory: Path, data_dir=None) -> dict:
    """Trains a cell on a task. Returns the accuracy of each seed on longer texts, their mean and 95% interval, and the
    accuracy of each seed on texts as long as the training texts. Raises UserError if a seed failed."""
    config = state_tracking.get_config(task)
    config.model.cell = cell
    config.model.projection, config.parameters = PROJECTIONS.get(cell, 0), 0
    with contextlib.redirect_stdout(io.StringIO()):
        found = lanes.run(config, str(directory), data_dir, f"seed=0:{SEEDS}")
    jax.clear_caches()  # frees the program of this cell and task
    accuracy = {"valid": [], "test": []}
    for lane, summary in found.items():
        if "error" in summary:
            raise UserError(f"{directory}/{lane}: {summary['error']}")
        for row in summary["results"]:
            accuracy[row["split"]].append(row["accuracy"])
    seeds = summarize_seeds(accuracy["test"])
    found = {"values": accuracy["test"], "mean": seeds.mean, "interval": [seeds.low, seeds.high]}
    return found | {"as_long_as_training": accuracy["valid"]}


def as_table(rows: list[dict]) -> tuple[list[str], list[list[str]]]:
    """(columns, rows) with a row per cell: the mean and the standard deviation of each task's accuracy."""
    shown: dict[str, list[str]] = {}
    for row in rows:
        mean_and_sd = f"{np.mean(row['values']):.3f} ± {np.std(row['values'], ddof=1):.3f}"
        shown.setdefault(row["cell"], [row["cell"]]).append(mean_and_sd)
    return ["cell", *STATE_TASKS], list(shown.values())


def draw(rows: list[dict]):
    """Draws the mean accuracy of each cell and task as a heat map, in bold type if the task is solved."""
    cells = list(dict.fromkeys(row["cell"] for row in rows))
    values = np.array([row["mean"] for row in rows]).reshape(len(cells), len(STATE_TASKS))
    figure = new_figure(6, 1.2 + 0.3 * len(cells))
    axes = figure.subplots()
    axes.imshow(values, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(STATE_TASKS)), list(STATE_TASKS))
    axes.set_yticks(range(len(cells)), cells)
    for (row, column), value in np.ndenumerate(values):
        weight = "bold" if value >= SOLVED else "normal"
        colour = "white" if value > 0.6 else "black"
        axes.text(column, row, f"{value:.3f}", ha="center", va="center", fontsize=8, color=colour, weight=weight)
    axes.set_title("accuracy on texts of 40 to 256 symbols; trained on 1 to 40", fontsize=10)
    return figure
