"""Pictures of a sweep, drawn by Optuna, and report.html, which shows them above a table of all trials.

scatter.png       validation perplexity against each parameter
parallel.png      parallel coordinates: one line per trial, from its value through its parameters
importances.png   how much each parameter distinguishes good trials (PED-ANOVA, Watanabe et al. 2023)
curves.png        validation perplexity at each check, one line per trial
"""

import io
import json
import math
import sys
import warnings
from pathlib import Path

import numpy as np
import optuna
from matplotlib import colormaps, pyplot
from matplotlib.ticker import LogFormatter
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as plots

from experiments.pages import render
from experiments.sweeps.progress import format_value
from experiments.sweeps.study import quiet_optuna
from experiments.sweeps.training import describe_error
from experiments.sweeps.trials import FINISHED, describe_state, directory_of, trials_without_surplus, value_of
from lm.runs.files import write_bytes

CEILING = 100  # plotted values are clipped at this multiple of the best value
PERPLEXITY = "validation perplexity"


def write_report(study: optuna.Study, workdir: str | Path):
    """Writes report.html and the pictures for which the study has enough trials. Leaves out a picture that fails.
    Raises UserError for a file that cannot be written."""
    trials = sorted(trials_without_surplus(study), key=rank)
    complete = [trial for trial in trials if rank(trial) < math.inf]
    best = ""
    if complete:
        settings = ", ".join(f"{key} = {format_value(value)}" for key, value in complete[0].params.items())
        best = f"Best: trial {complete[0].number}, {PERPLEXITY} {complete[0].value:.4f}, at {settings}."
    images = draw_all(study, [value_of(each) for each in complete], any(each.intermediate_values for each in trials))
    for name, (_, image) in images.items():
        write_bytes(Path(workdir, f"{name}.png"), image)
    keys = list(dict.fromkeys(key for trial in trials for key in trial.params))
    rows, links = [], []
    for trial in trials:
        directory = directory_of(study, trial)
        links.append(f"{directory.as_posix()}/" if Path(workdir, directory).is_dir() else "")  # not on this machine
        state = describe_state(trial) + (" (best)" if [trial] == complete[:1] else "")
        rows.append([trial.number, *map(trial.params.get, keys), state, trial.user_attrs.get("seconds")])
    definition = study.user_attrs.get("definition")
    page = render(
        "sweep.html",
        title=f"Sweep {study.study_name}",
        ended=sum(trial.state in FINISHED for trial in trials),
        complete=len(complete),
        best=best,
        ceiling=CEILING,
        images=list(images.values()),
        columns=["trial", *keys, PERPLEXITY, "seconds"],
        rows=rows,
        links=links,
        definition=json.dumps(definition, indent=1) if definition else "",
    )
    write_bytes(Path(workdir, "report.html"), page.encode())


def rank(trial: FrozenTrial) -> float:
    """The finite value of a complete trial; infinity for any other trial, so that it comes last in the table."""
    return value_of(trial) if trial.state == TrialState.COMPLETE and math.isfinite(value_of(trial)) else math.inf


def draw_all(study: optuna.Study, values: list[float], has_curves: bool) -> dict[str, tuple[str, bytes]]:
    """Draws the pictures for which there are enough trials. Returns {name: (title, PNG)}."""
    drawings = {}
    if values:
        drawings["scatter"] = ("Validation perplexity against each parameter", draw_scatter)
        drawings["parallel"] = ("Parallel coordinates, the best trials darkest", draw_parallel)
    if len(values) >= 4 and len(set(values)) > 1:
        drawings["importances"] = ("Parameter importances (PED-ANOVA)", draw_importances)
    if has_curves:
        drawings["curves"] = ("Learning curves by trial, the best darkest", draw_curves)
    ceiling = CEILING * min(values, default=math.inf)
    images = {}
    pyplot.switch_backend("agg")
    with quiet_optuna(), warnings.catch_warnings(), pyplot.rc_context({"text.parse_math": False}):
        warnings.simplefilter("ignore", UserWarning)  # about the zero-length axis of a single trial
        for name, (title, draw) in drawings.items():
            try:
                draw(study, ceiling)
                images[name] = (title, current_png())
            except Exception as error:  # the report is written without the picture
                print(f"{name}.png cannot be drawn: {describe_error(error)}", file=sys.stderr)
    return images


def current_png() -> bytes:
    """Returns the current figure as a PNG file with plain numbers on logarithmic axes. Closes the figure."""
    figure, image = pyplot.gcf(), io.BytesIO()
    for axis in (axis for panel in figure.axes for axis in (panel.xaxis, panel.yaxis)):
        if axis.get_scale() == "log":
            axis.set_major_formatter(LogFormatter())
            axis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
    figure.savefig(image, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    pyplot.close(figure)
    return image.getvalue()


# --- Functions that draw the current figure -------------------------------------------------------------------------


def draw_scatter(study: optuna.Study, ceiling: float):
    plots.plot_slice(study, target=lambda trial: min(value_of(trial), ceiling), target_name=PERPLEXITY)
    figure = pyplot.gcf()
    panels = figure.axes[:-1]  # the last is the colour bar
    for panel in panels:
        panel.set_yscale("log")
        panel.xaxis.label.set_fontsize("small")
    figure.set_size_inches(1.5 + 3 * len(panels), 4.5)


def draw_parallel(study: optuna.Study, ceiling: float):
    name = f"log10 of {PERPLEXITY}"
    plots.plot_parallel_coordinate(
        study, target=lambda trial: math.log10(min(value_of(trial), ceiling)), target_name=name
    )
    for panel in pyplot.gcf().axes:
        panel.grid(visible=False)
    pyplot.gcf().set_size_inches(11, 4.5)


def draw_importances(study: optuna.Study, ceiling: float):  # without the ceiling: only ranks matter
    plots.plot_param_importances(study, target_name=PERPLEXITY)


def draw_curves(study: optuna.Study, ceiling: float):
    """Colours Optuna's curves by rank: its own colours distinguish at most twenty trials."""
    panel = plots.plot_intermediate_values(study)
    lines = sorted(panel.get_lines(), key=lambda line: np.min(line.get_ydata()))
    for place, line in enumerate(lines):
        line.set_color(colormaps["viridis"](place / len(lines)))
    panel.set(xlabel="validation check", ylabel=PERPLEXITY, yscale="log")
    panel.locator_params(axis="x", integer=True)
    panel.set_ylim(top=min(panel.get_ylim()[1], ceiling))
    if legend := panel.get_legend():
        legend.remove()
