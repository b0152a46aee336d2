"""A sweep in pictures: PNG files in its workdir, and report.html that holds them all.

scatter.png       validation perplexity against each parameter
parallel.png      parallel coordinates: a line for each trial, from parameter to parameter to its value
importances.png   how much of the good trials' success each parameter explains (PED-ANOVA, Watanabe et al. 2023)
curves.png        learning curves by trial
"""

import io
import json
import math
from pathlib import Path

from optuna.trial import TrialState

from experiments.pages import html
from experiments.sweeps.study import FINISHED, directory_of, quiet
from experiments.sweeps.table import how, short
from experiments.sweeps.worker import validations
from lm.runs import metrics

COLOURS = "viridis_r"  # dark is good
CEILING = 100  # values above so many times the best are drawn there


def write_report(study, workdir: str):
    """Writes the pictures that the study has trials for, and report.html. Raises UserError where it cannot."""
    workdir = Path(workdir)
    trials = [trial for trial in study.get_trials(deepcopy=False) if "surplus" not in trial.user_attrs]
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and math.isfinite(trial.value)]
    pictures = {}
    if complete:
        pictures["scatter"] = ("Validation perplexity against each parameter", scatter(complete))
        pictures["parallel"] = ("Parallel coordinates, the best trials darkest", parallel(complete))
    if importances := parameter_importances(study, complete):
        pictures["importances"] = ("Parameter importances (PED-ANOVA)", bars(importances))
    curves = [(trial, validations(workdir / directory_of(study, trial))) for trial in trials]
    if any(rows for _, rows in curves):
        pictures["curves"] = ("Learning curves by trial, the best darkest", learning_curves(curves))
    images = {}
    for name, (title, figure) in pictures.items():
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=130, metadata={"Software": None})
        images[name] = (title, image.getvalue())
        metrics.write_bytes(workdir / f"{name}.png", image.getvalue())
    metrics.write_bytes(workdir / "report.html", page(study, trials, complete, images).encode())


def page(study, trials: list, complete: list, images: dict) -> str:
    """report.html. images: {name: (title, PNG)}"""
    ended = sum(trial.state in FINISHED for trial in trials)
    sections = [html.paragraph(f"{ended} trials have ended, {len(complete)} with a value.")]
    if complete:
        best = min(complete, key=lambda trial: trial.value)
        settings = ", ".join(f"{key} = {short(value)}" for key, value in best.params.items())
        text = f"Best: trial {best.number}, validation perplexity {best.value:.4f}, at {settings}."
        sections.append(html.paragraph(f"{text} Values above {CEILING} times the best are drawn there."))
    for title, image in images.values():
        sections.append(html.figure(image, "png", title, title))
    keys = list(dict.fromkeys(key for trial in trials for key in trial.params))
    rows = [
        [trial.number, *(trial.params.get(key) for key in keys), how(trial), trial.user_attrs.get("seconds")]
        for trial in trials
    ]
    sections += [html.heading("Trials"), html.table(["trial", *keys, "validation perplexity", "seconds"], rows)]
    if definition := study.user_attrs.get("definition"):
        sections.append(html.heading("The sweep"))
        sections.append(html.details("config", html.preformatted(json.dumps(definition, indent=1))))
    return html.page(f"Sweep {study.study_name}", sections)


# --------------------------------------------------------------------------------------- pictures


def scatter(trials: list):
    """A panel for each parameter, in rows of two."""
    from matplotlib.figure import Figure

    keys, values = list(trials[0].params), under_the_ceiling([trial.value for trial in trials])
    rows = -(-len(keys) // 2)
    figure = Figure(figsize=(9, 3.2 * rows), layout="constrained")
    panels = figure.subplots(rows, 2, squeeze=False).ravel()
    for panel, key in zip(panels, keys, strict=False):
        places, ticks = axis(trials, key)
        panel.scatter(places, values, s=18, color="#1b6ca8")
        panel.set(xlabel=key.replace("$", r"\$")[:60], ylabel="validation perplexity", yscale="log")
        if ticks:
            panel.set_xticks(*ticks)
        elif is_logarithmic(trials[0].distributions[key]):
            panel.set_xscale("log")
        panel.grid(alpha=0.3, which="both")
    for panel in panels[len(keys) :]:
        panel.set_visible(False)
    return figure


def under_the_ceiling(values: list[float], best: float | None = None) -> list[float]:
    """Diverged trials would leave the others no room."""
    ceiling = CEILING * (min(values) if best is None else best)
    return [min(value, ceiling) for value in values]


def axis(trials: list, key: str) -> tuple[list, tuple | None]:
    """(where each trial stands on the axis of a parameter, (places, labels) of the ticks where it is a choice)."""
    distribution = trials[0].distributions[key]
    if not hasattr(distribution, "choices"):
        return [trial.params[key] for trial in trials], None
    places = [distribution.choices.index(trial.params[key]) for trial in trials]
    return places, (range(len(distribution.choices)), [label(choice) for choice in distribution.choices])


def label(value) -> str:
    """A value as text beside an axis: short, and never taken for a formula."""
    text = short(value)
    return (text if len(text) <= 16 else text[:15] + "…").replace("$", r"\$")


def is_logarithmic(distribution) -> bool:
    return bool(getattr(distribution, "log", False))


def parallel(trials: list):
    """Each axis from its lowest to its highest value; the last one is the trial's, on a logarithmic scale."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    columns, labels = [], []
    for key in trials[0].params:
        places, ticks = axis(trials, key)
        logarithmic = ticks is None and is_logarithmic(trials[0].distributions[key])
        columns.append(spread([math.log(place) for place in places] if logarithmic else places))
        low, high = places.index(min(places)), places.index(max(places))
        labels.append(
            (
                key.rpartition(".")[2][:24].replace("$", r"\$"),
                label(trials[low].params[key]),
                label(trials[high].params[key]),
            )
        )
    values = under_the_ceiling([trial.value for trial in trials])
    columns.append(spread([math.log(value) for value in values]))
    labels.append(("validation perplexity", short(min(values)), short(max(values))))
    figure = Figure(figsize=(9, 4), layout="constrained")
    panel = figure.subplots()
    for line in sorted(zip(*columns, strict=True), key=lambda line: -line[-1]):  # the best on top
        panel.plot(range(len(line)), line, color=colormaps[COLOURS](1 - line[-1]), alpha=0.6, linewidth=1.2)
    for place, (_, low, high) in enumerate(labels):
        panel.axvline(place, color="black", linewidth=0.8)
        panel.text(place, -0.03, low, ha="center", va="top", fontsize="small")
        panel.text(place, 1.03, high, ha="center", va="bottom", fontsize="small")
    panel.set_xticks(range(len(labels)), [name for name, *_ in labels], fontsize="small")
    panel.tick_params(axis="x", pad=14, length=0)
    panel.set(yticks=[], ylim=(-0.08, 1.1))
    for side in panel.spines.values():
        side.set_visible(False)
    return figure


def spread(values: list) -> list[float]:
    """Onto 0 to 1; all in the middle where they are equal."""
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.5 for value in values]


def parameter_importances(study, complete: list) -> dict[str, float]:
    """{key: share}; empty where there is too little to tell."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    if len(complete) < 4 or len({trial.value for trial in complete}) < 2:
        return {}
    with quiet():
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    return {key: value for key, value in found.items() if math.isfinite(value)}


def bars(importances: dict[str, float]):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.6 + 0.5 * len(importances)), layout="constrained")
    panel = figure.subplots()
    names = [key.rpartition(".")[2][:24].replace("$", r"\$") for key in importances]
    drawn = panel.barh(names, list(importances.values()), color="#1b6ca8")
    panel.bar_label(drawn, fmt=" %.2f")
    panel.set(xlim=(0, 1.15 * max(*importances.values(), 1e-9)), xlabel="importance")
    panel.invert_yaxis()
    return figure


def learning_curves(curves: list):
    """curves: [(trial, rows of metrics.jsonl with a validation perplexity)]"""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    drawn = [(trial, rows) for trial, rows in curves if rows]
    order = sorted(drawn, key=lambda pair: min(row["valid_perplexity"] for row in pair[1]))
    best = min(row["valid_perplexity"] for row in order[0][1])
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    panel = figure.subplots()
    for rank, (trial, rows) in reversed(list(enumerate(order))):
        share = 1 - rank / max(1, len(order) - 1)
        style = "-" if trial.state == TrialState.COMPLETE else ":"
        label = f"trial {trial.number}" if rank == 0 else None
        x, y = [row["epoch"] for row in rows], under_the_ceiling([row["valid_perplexity"] for row in rows], best)
        panel.plot(x, y, style, marker=".", color=colormaps[COLOURS](share), linewidth=1.2, label=label)
    panel.set(xlabel="epochs", ylabel="validation perplexity", yscale="log")
    panel.grid(alpha=0.3, which="both")
    panel.legend()
    return figure
