"""Pictures of a sweep, drawn by Optuna, and report.html, which shows them above a table of all trials.

scatter.png       validation perplexity against each parameter
parallel.png      parallel coordinates: one line per trial, from its value through its parameters
importances.png   share of each parameter in the success of the good trials (PED-ANOVA, Watanabe et al. 2023)
curves.png        validation perplexity at each check, one line per trial
"""

import io
import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial, TrialState

from experiments.pages import render
from experiments.sweeps.study import quiet_optuna
from experiments.sweeps.table import format_value
from experiments.sweeps.trials import FINISHED, describe_state, trials_without_surplus
from lm.runs.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CEILING = 100  # values above this multiple of the best are drawn there, to leave room for the others
PERPLEXITY = "validation perplexity"


def write_report(study: optuna.Study, workdir: str | Path):
    """Writes the pictures that the study has enough trials for, and report.html.

    Raises UserError for a file that cannot be written.
    """
    workdir = Path(workdir)
    trials = trials_without_surplus(study)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and math.isfinite(trial.value)]
    images = draw_all(study, trials, complete)
    for name, (_, image) in images.items():
        write_bytes(workdir / f"{name}.png", image)
    write_bytes(workdir / "report.html", page(study, trials, complete, images).encode())


def page(study: optuna.Study, trials: list[FrozenTrial], complete: list[FrozenTrial], images: dict) -> str:
    """report.html. images: {name: (title, PNG)}"""
    best = ""
    if complete:
        first = min(complete, key=lambda trial: trial.value)
        settings = ", ".join(f"{key} = {format_value(value)}" for key, value in first.params.items())
        best = f"Best: trial {first.number}, {PERPLEXITY} {first.value:.4f}, at {settings}."
    keys = list(dict.fromkeys(key for trial in trials for key in trial.params))
    rows = [
        [trial.number, *(trial.params.get(key) for key in keys), describe_state(trial), trial.user_attrs.get("seconds")]
        for trial in trials
    ]
    definition = study.user_attrs.get("definition")
    return render(
        "sweep.html",
        title=f"Sweep {study.study_name}",
        ended=sum(trial.state in FINISHED for trial in trials),
        complete=len(complete),
        best=best,
        ceiling=CEILING,
        images=list(images.values()),
        columns=["trial", *keys, PERPLEXITY, "seconds"],
        rows=rows,
        definition=json.dumps(definition, indent=1) if definition else "",
    )


def draw_all(study: optuna.Study, trials: list[FrozenTrial], complete: list[FrozenTrial]) -> dict:
    """{name: (title, PNG)} of each picture that there are enough trials for."""
    from matplotlib import pyplot

    ceiling = CEILING * min((trial.value for trial in complete), default=math.inf)
    pictures = {}
    if complete:
        pictures["scatter"] = ("Validation perplexity against each parameter", draw_scatter)
        pictures["parallel"] = ("Parallel coordinates, the best trials darkest", draw_parallel)
    if len(complete) >= 4 and len({trial.value for trial in complete}) > 1:
        pictures["importances"] = ("Parameter importances (PED-ANOVA)", draw_importances)
    if any(trial.intermediate_values for trial in trials):
        pictures["curves"] = ("Learning curves by trial, the best darkest", draw_curves)
    pyplot.switch_backend("agg")
    with quiet_optuna(), warnings.catch_warnings(), pyplot.rc_context({"text.parse_math": False}):
        warnings.simplefilter("ignore", UserWarning)  # of a single trial: its axis has no length
        return {name: (title, png_of(draw, study, ceiling)) for name, (title, draw) in pictures.items()}


def png_of(draw: Callable, study: optuna.Study, ceiling: float) -> bytes:
    """The figure of draw(study, ceiling) as a PNG file, its logarithmic axes labelled without formulas."""
    from matplotlib import pyplot
    from matplotlib.ticker import LogFormatter

    figure = draw(study, ceiling)
    for axis in (axis for panel in figure.axes for axis in (panel.xaxis, panel.yaxis)):
        if axis.get_scale() == "log":
            axis.set_major_formatter(LogFormatter())
            axis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)
    return image.getvalue()


# ------------------------------------------------------------------------------------- by picture


def draw_scatter(study: optuna.Study, ceiling: float) -> "Figure":
    import numpy as np
    from optuna.visualization.matplotlib import plot_slice

    panels = np.ravel(plot_slice(study, target=lambda trial: min(trial.value, ceiling), target_name=PERPLEXITY))
    for panel in panels:
        panel.set_yscale("log")
        panel.xaxis.label.set_size("small")
    figure = panels[0].figure
    figure.set_size_inches(1.5 + 3 * len(panels), 4.5)
    return figure


def draw_parallel(study: optuna.Study, ceiling: float) -> "Figure":
    from optuna.visualization.matplotlib import plot_parallel_coordinate

    name = f"log10 of {PERPLEXITY}"
    panel = plot_parallel_coordinate(
        study, target=lambda trial: math.log10(min(trial.value, ceiling)), target_name=name
    )
    figure = panel.figure
    for each in figure.axes:
        each.grid(visible=False)
    figure.set_size_inches(11, 4.5)
    return figure


def draw_importances(study: optuna.Study, ceiling: float) -> "Figure":
    from optuna.visualization.matplotlib import plot_param_importances

    del ceiling  # ranks decide
    return plot_param_importances(study, target_name=PERPLEXITY).figure


def draw_curves(study: optuna.Study, ceiling: float) -> "Figure":
    """Optuna's curves, which tell twenty trials apart at most, coloured by rank instead of by number."""
    from matplotlib import colormaps
    from optuna.visualization.matplotlib import plot_intermediate_values

    panel = plot_intermediate_values(study)
    lines = sorted(panel.get_lines(), key=lambda line: min(line.get_ydata()))
    for rank, line in enumerate(lines):
        line.set_color(colormaps["viridis"](rank / len(lines)))
    panel.set(xlabel="validation check", ylabel=PERPLEXITY, yscale="log")
    panel.locator_params(axis="x", integer=True)
    panel.set_ylim(top=min(panel.get_ylim()[1], ceiling))
    if legend := panel.get_legend():
        legend.remove()
    return panel.figure
