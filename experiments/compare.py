"""Compares finished runs: their results, configs and curves, and whether their models differ on one text.

    python launch.py --experiment=compare RUN_A RUN_B ... [--split=valid] [--checkpoint=last] [--workdir=DIR]

A run is not changed, except that a score of the test split is logged in its test_log.jsonl. Models are compared by a
paired block bootstrap over their nats for the same targets under the exact protocol (lm/scoring/uncertainty.py).
Writes compare.json, compare.md, curves.png and report.html.
"""

import functools
import itertools
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from configs.base import base
from experiments.ledger.records import make_record
from experiments.pages import comparison_page, png_of
from experiments.pages.printed import measures_of
from experiments.train import corpus_of
from lm.data.corpora import CORPORA, OWN, Corpus
from lm.data.reused import division_keys
from lm.data.text import SPLITS
from lm.errors import UserError, check_name
from lm.run import Run, open_run
from lm.runs.files import make_own_directory, sha256_of, write_bytes, write_json
from lm.runs.plain import flat, plain
from lm.runs.workdir import VOCABULARY, log_test_score, read_config
from lm.scoring.measures import MEASURES
from lm.scoring.score import Score, perplexity
from lm.scoring.uncertainty import paired_bootstrap
from lm.tasks import make_task, protocol_settings
from lm.training.summary import result_row

NEEDED = ("config.json", "summary.json", "metrics.jsonl", "checkpoints")


class FinishedRun(NamedTuple):
    """A run with its results. config: the content of config.json; record: from experiments/ledger/records.py; symbols:
    the SHA-256 of vocabulary.json, or "" without one"""

    label: str
    workdir: Path
    config: dict
    record: dict
    symbols: str = ""


def run(config, workdir, data_dir=None, runs=(), split="valid", checkpoint="last"):
    """Compares the runs in the directories `runs`. Returns the content of `workdir`/compare.json."""
    check_name(split, SPLITS, "--split")
    found = read_runs(runs)
    opened = [open_run(each.workdir, checkpoint) for each in found]
    models = [Model(each, corpus_of(each, each.config, data_dir, tuple({"train", split}))) for each in opened]
    comparison = {
        "split": split,
        "checkpoint": checkpoint,
        "runs": [{"label": each.label, "workdir": str(each.workdir), **each.record} for each in found],
        "metrics": metric_table(found),
        "differences": config_differences(found),
        "pairs": compare_pairs(found, models, split),
    }
    directory = make_own_directory(workdir, "compare.json", "compare.md", "curves.png", "report.html")
    write_json(directory / "compare.json", comparison)
    text, curves = comparison_page.write_markdown(comparison), comparison_page.draw_curves(comparison)
    write_bytes(directory / "compare.md", text.encode())
    write_bytes(directory / "curves.png", png_of(curves))
    write_bytes(directory / "report.html", comparison_page.write_html(comparison, curves).encode())
    print(text)
    print(f"wrote {directory}/compare.json, compare.md, curves.png and report.html")
    return comparison


# --- Reading runs ---------------------------------------------------------------------------------------------------


def read_runs(workdirs: tuple[str, ...]) -> list[FinishedRun]:
    """Reads the finished runs in the directories. Raises UserError for an unfinished run, and for fewer than two."""
    if len(workdirs) < 2:
        given = f"{len(workdirs)} given"
        raise UserError(f"compare needs the directories of two or more runs, such as RUN_A RUN_B; {given}")
    paths = [Path(workdir) for workdir in workdirs]
    for path in paths:
        if not path.is_dir():
            raise UserError(f"{path}: there is no such directory: name the --workdir of a finished run")
        if missing := [name for name in NEEDED if not (path / name).exists()]:
            raise UserError(f"{path} holds no finished run: {', '.join(missing)} is missing")
    found = []
    for label, path in zip(label_paths(paths), paths, strict=True):
        symbols = sha256_of(path / VOCABULARY) if (path / VOCABULARY).is_file() else ""
        found.append(FinishedRun(label, path, read_config(path) or {}, make_record(path), symbols))
    return found


def label_paths(paths: list[Path]) -> list[str]:
    """Labels each path with its last components, as few as distinguish all paths. A repeated path gets a number."""
    parts = [path.resolve().parts for path in paths]
    different = len(set(parts))
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len(set(names)) == different:
            break
    seen = [names[:index].count(name) + 1 for index, name in enumerate(names)]
    return [name if number == 1 else f"{name} ({number})" for name, number in zip(names, seen, strict=True)]


class Model(NamedTuple):
    """A run's model at one of its checkpoints, and its corpus."""

    opened: Run
    corpus: Corpus

    def nats(self, split: str) -> np.ndarray:
        """Nats [N - context] of every target under the exact protocol. Logs the score if the split is test."""
        opened = self.opened
        task = make_task(ConfigDict(opened.config.to_dict()), self.corpus)
        nats = task.target_nats(opened.parameters, self.corpus.splits[split])
        if split == "test":
            score = Score(float(nats.sum(dtype=np.float64)), len(nats))
            which = "best" if opened.checkpoint == "best" else "final"
            row = result_row(split, "exact", score, opened.step - 1, which)
            log_test_score(opened.workdir, row | {"experiment": "compare"})
        return nats


# --- Comparing ------------------------------------------------------------------------------------------------------


def metric_table(runs: list[FinishedRun]) -> dict[str, list]:
    """{metric: its value in each run, or None}: scores, then numbers of the training."""
    training = []
    for each in runs:
        train, names = each.record["train"], ("parameters", "seed", "corpus")
        row = {"last mean training loss": train["final_mean_loss"], "steps": train["steps"]}
        row |= {"training seconds": train["wall_time_s"], "tokens/s": train["tokens_per_s"]}
        training.append(row | {name: each.record[name] for name in names})
    return side_by_side(score_rows(runs), None) | side_by_side(training, None)


def score_rows(runs: list[FinishedRun]) -> list[dict[str, float]]:
    """{description: score} for each run. If settings differ between runs, a description names them; if texts differ,
    the first run with that text."""
    named: dict[str, list[tuple]] = {}
    for number, each in enumerate(runs):
        for row in each.record["results"]:
            for metric in measures_of(row) or ["perplexity"]:
                name = f"{row['which']} {row['split']} {metric} ({row['protocol']}, {row['targets']:,} targets)"
                kinds = settings_of(each, row, metric), text_of(each, row["split"], metric)
                named.setdefault(name, []).append((number, *kinds, row[metric]))
    scores: list[dict[str, float]] = [{} for _ in runs]
    for name, found in named.items():
        settings = {chosen for _, chosen, _, _ in found}
        labels = {text: runs[number].label for number, _, text, _ in reversed(found)}  # the first run with each text
        for number, chosen, text, value in found:
            more = [chosen] if len(settings) > 1 else []
            more += [f"text of {labels[text]}"] if len(labels) > 1 else []
            scores[number]["; ".join([name, *more])] = value
    return scores


def settings_of(run: FinishedRun, row: dict, metric: str) -> str:
    """The settings of config.evaluation that a score's protocol and measure read, such as "temperature=0.8": scores are
    comparable only if they agree."""
    evaluation = plain(base().evaluation) | run.record["provenance"]["config"]["evaluation"]
    used = protocol_settings(row["protocol"], evaluation)
    used |= {key: evaluation.get(key) for key in (MEASURES[metric].reads if metric in MEASURES else ())}
    return ", ".join(f"{key}={value}" for key, value in used.items())


def text_of(run: FinishedRun, split: str, metric: str) -> str:
    """Identifies a score's text: by its file's checksum, or by its corpus's and the keys that draw or divide it. For
    perplexity, also by the vocabulary: perplexities per character and per word are not comparable."""
    values, source = flat(plain(base())) | flat(run.config), run.record["provenance"]["data"]
    data = {key.partition(".")[2]: value for key, value in values.items() if key.startswith("data.")}
    path = data.get(f"{split}_path")
    text = [each.get("sha256") for each in source.get("sources", []) if path and each.get("file") == path]
    if not text:
        is_drawn = data["corpus"] not in OWN and not CORPORA[data["corpus"]].files
        keys = ("seed", *(["size"] if data["corpus"] == "synthetic" else [])) if is_drawn else division_keys(data)
        text = [source.get("checksum", "").partition("+")[0], [data[key] for key in keys]]
    return json.dumps([text, run.symbols if metric == "perplexity" else ""])


def config_differences(runs: list[FinishedRun]) -> dict[str, list]:
    """{dotted config key: its value in each run}, for keys that differ between runs."""
    table = side_by_side([flat(each.config) for each in runs], "(absent)")
    different = {key: values for key, values in sorted(table.items()) if any(value != values[0] for value in values)}
    return {key: [shown_value(value) for value in values] for key, values in different.items()}


def shown_value(value):
    """A value as a cell of a table: text that would not be visible, such as a newline, as Python writes it."""
    return repr(value) if isinstance(value, str) and not (value.strip() and value.isprintable()) else value


def side_by_side(columns: list[dict], absent: str | None) -> dict[str, list]:
    """{key of any column: its value in each column, or `absent`}"""
    keys = dict.fromkeys(itertools.chain.from_iterable(columns))
    return {key: [column.get(key, absent) for column in columns] for key in keys}


def compare_pairs(runs: list[FinishedRun], models: list[Model], split: str) -> list[dict]:
    """For each pair of runs, the difference of their models on the split, or the reason why they are not compared."""
    nats = functools.cache(lambda index: models[index].nats(split))
    rows = []
    for a, b in itertools.combinations(range(len(runs)), 2):
        row = {"a": runs[a].label, "b": runs[b].label}
        if reason := pairing_problem(models[a].corpus, models[b].corpus, split):
            rows.append(row | {"verdict": "not compared", "reason": reason})
            continue
        count = min(len(nats(a)), len(nats(b)))  # a model that reads more context has fewer targets
        ours, theirs = nats(a)[-count:], nats(b)[-count:]
        found = paired_bootstrap(ours, theirs)
        better = {f"{name} is better": f"{row[name]} is better" for name in "ab"}
        means = [float(each.mean(dtype=np.float64)) for each in (ours, theirs)]
        rows.append(
            row
            | {"verdict": better.get(found.verdict, found.verdict), "reason": "", "targets": count}
            | {"a_perplexity": perplexity(means[0]), "b_perplexity": perplexity(means[1])}
            | {"difference": found.mean, "low": found.low, "high": found.high, "block": found.block}
        )
    return rows


def same_split(a, b) -> bool:
    """Whether two splits have the same token ids or, for examples, the same value in every field."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray | tuple):
        return np.array_equal(a, b)
    return all(map(same_split, vars(a).values(), vars(b).values()))


def pairing_problem(a: Corpus, b: Corpus, split: str) -> str:
    """The reason why nats on the split cannot be paired; "" if they can."""
    missing = [each.name for each in (a, b) if split not in each.splits]
    if missing:
        return f"corpus {missing[0]} has no {split} text"
    corpora = f"corpora {a.name} and {b.name}"
    if a.vocabulary.symbols != b.vocabulary.symbols:
        return f"their vocabularies differ ({corpora}): nats of different symbols cannot be paired"
    if a.vocabulary.labels != b.vocabulary.labels:
        return f"their labels differ ({corpora}): nats of different labels cannot be paired"
    same = same_split(a.splits[split], b.splits[split])
    return "" if same else f"their {split} texts differ ({corpora}): there are no common targets"
