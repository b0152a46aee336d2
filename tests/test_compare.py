"""Comparing runs: differences and verdicts of real tiny runs, and one line for each mistake."""

import json
import math
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import launch
from configs.base import base
from experiments import compare
from experiments.pages import comparison_page
from lm.data.corpora import load
from lm.errors import UserError
from lm.scoring.measures import MEASURES
from lm.tasks import PROTOCOLS
from lm.training.loop import train
from lm.training.setup import make_setup
from tests.helpers import tiny
from tests.helpers.markdown_tables import table_rows

SIZE = 6000


def write_text(path, symbols=tiny.SYMBOLS):
    path.write_text("".join(symbols[i] for i in tiny.text(SIZE)))
    return str(path)


def make_run(workdir, path, **changes):
    """Trains on the text at `path`, of which a fifth is for validation."""
    shape = {"model__hidden": (6,), "data__batch_size": 8, "data__unroll": 8}
    changes = shape | {"train__steps": 30, "train__evaluate_every": 10} | changes
    config = tiny.config(data__corpus="textfile", data__path=path, data__fractions=(0.7, 0.2, 0.1), **changes)
    train(make_setup(config, load(config.data, None, ("train", "valid"))), str(workdir))
    return str(workdir)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Work directories by name."""
    root = tmp_path_factory.mktemp("runs")
    text, other = write_text(root / "text"), write_text(root / "other", "vwxyz")
    good = dict(optim__learning_rate=3.0, train__steps=150)
    return {
        "good": make_run(root / "good", text, **good),
        "bad": make_run(root / "bad", text),
        "other": make_run(root / "other_run", other),
    }


@pytest.fixture(scope="module")
def compared(runs, tmp_path_factory):
    """(workdir, comparison) of all runs, the first one twice."""
    workdir = tmp_path_factory.mktemp("compare") / "new"
    given = (runs["good"], runs["bad"], runs["other"], runs["good"])
    return workdir, compare.run(base(), str(workdir), None, runs=given)


def pair(comparison, a, b):
    [found] = [each for each in comparison["pairs"] if (each["a"], each["b"]) == (a, b)]
    return found


def test_the_better_run_is_named(compared, runs):
    """The numbers equal each run's own final score; the verdict follows from the interval."""
    found = pair(compared[1], "good", "bad")
    assert found["verdict"] == "good is better"
    assert found["low"] < found["difference"] < found["high"] < 0
    for name in ("a", "b"):
        score = json.loads(Path(runs[found[name]], "summary.json").read_text())["results"][0]
        assert found[f"{name}_perplexity"] == pytest.approx(score["perplexity"], rel=1e-6)
        assert found["targets"] == score["targets"]
    ratio = found["a_perplexity"] / found["b_perplexity"]
    assert found["difference"] == pytest.approx(math.log(ratio), rel=1e-5)


def test_a_run_against_itself_is_not_distinguishable(compared):
    found = pair(compared[1], "good", "good (2)")
    assert found["verdict"] == "not distinguishable"
    assert (found["low"], found["difference"], found["high"]) == (0, 0, 0)


class Fixed(NamedTuple):
    """Stands in for compare.Model, with given nats."""

    values: np.ndarray
    corpus: object

    def nats(self, split):
        return self.values


def test_models_with_more_context_are_compared_on_the_last_targets():
    """A bigram model has no prediction for the text's second symbol: here that target alone would decide."""
    corpus, rng = tiny.corpus(), np.random.default_rng(0)
    a = rng.uniform(0.5, 1.5, 300)
    models = [Fixed(np.concatenate([[1e6], a]), corpus), Fixed(a + 0.25, corpus)]
    named = [compare.FinishedRun(name, None, {}, {}) for name in "ab"]
    [found] = compare.compare_pairs(named, models, "valid")
    assert (found["targets"], found["verdict"]) == (300, "a is better")
    assert found["difference"] == pytest.approx(-0.25)
    assert found["a_perplexity"] == pytest.approx(math.exp(a.mean()))


def finished(label, symbols="", checksum="c", sources=(), evaluation=None, protocol="exact", **data):
    """A run with one score, 2.0; data: keys of config.data"""
    config = {"data": {"corpus": "textfile", "path": "t"} | data, "evaluation": evaluation or {}}
    row = {"which": "final", "split": "valid", "protocol": protocol, "targets": 1000, "perplexity": 2.0}
    source = {"checksum": checksum, "sources": list(sources)}
    record = {"results": [row], "provenance": {"config": config, "data": source}}
    return compare.FinishedRun(label, None, config, record, symbols)


NAME = "final valid perplexity (exact, 1,000 targets)"
FILE = {"valid_path": "v", "sources": [{"file": "t", "sha256": "1"}, {"file": "v", "sha256": "2"}]}


@pytest.mark.parametrize(
    ("a", "b", "texts"),
    [
        ({}, {}, 1),
        ({}, {"checksum": "other"}, 2),
        ({}, {"checksum": "c+start"}, 1),  # the same text, another start
        ({}, {"fractions": (0.5, 0.4, 0.1)}, 2),
        ({}, {"symbols": "other"}, 2),  # perplexity per another symbol
        (FILE, FILE | {"checksum": "other"}, 1),  # more training text, one validation file
        (FILE, FILE | {"sources": [{"file": "v", "sha256": "3"}]}, 2),
        ({"corpus": "ptb"}, {"corpus": "ptb", "seed": 3}, 1),
        ({"corpus": "synthetic"}, {"corpus": "synthetic", "seed": 3}, 2),
        ({"corpus": "synthetic"}, {"corpus": "synthetic", "size": 3}, 2),
        ({"corpus": "parity"}, {"corpus": "parity", "size": 3}, 1),
    ],
)
def test_scores_of_different_texts_have_rows_of_their_own(a, b, texts):
    rows = compare.score_rows([finished("a", **a), finished("b", **b), finished("c", **a)])
    of_a, of_b = (NAME, NAME) if texts == 1 else (f"{NAME}; text of a", f"{NAME}; text of b")
    assert rows == [{of_a: 2.0}, {of_b: 2.0}, {of_a: 2.0}]


def test_scores_of_different_settings_have_rows_of_their_own():
    """A setting counts only for the protocols that read it."""
    runs = [
        finished(name, evaluation={"temperature": t}, protocol="temperature") for name, t in (("a", 0.5), ("b", 0.8))
    ]
    name = NAME.replace("exact", "temperature")
    assert compare.score_rows(runs) == [{f"{name}; temperature=0.5": 2.0}, {f"{name}; temperature=0.8": 2.0}]
    runs = [finished(name, evaluation={"temperature": t}) for name, t in (("a", 0.5), ("b", 0.8))]
    assert compare.score_rows(runs) == [{NAME: 2.0}] * 2
    readers = (*PROTOCOLS.values(), *MEASURES.values())
    assert {key for reader in readers for key in reader.reads} <= set(base().evaluation)


def test_too_few_targets_for_an_interval_name_no_winner():
    """20 targets are one block, so each resampled text has the same mean."""
    corpus = tiny.corpus()
    models = [Fixed(np.full(20, nats), corpus) for nats in (1.0, 2.0)]
    [found] = compare.compare_pairs([compare.FinishedRun(name, None, {}, {}) for name in "ab"], models, "valid")
    assert found["verdict"] == "too few targets for an interval: more than 20 are needed"
    comparison = {"runs": [{"label": "a"}, {"label": "b"}], "checkpoint": "last", "split": "valid"}
    text = comparison_page.write_markdown(comparison | {"metrics": {}, "differences": {}, "pairs": [found]})
    assert "better" not in text
    assert "inf" not in text


def test_different_texts_of_one_vocabulary_are_not_compared():
    corpus = tiny.corpus()
    other = corpus._replace(name="other", splits=corpus.splits | {"valid": tiny.text(61, seed=9)})
    models = [Fixed(np.ones(60), corpus), Fixed(np.ones(60), other)]
    named = [compare.FinishedRun(name, None, {}, {}) for name in "ab"]
    [found] = compare.compare_pairs(named, models, "valid")
    assert found["reason"] == "their valid texts differ (corpora tiny and other): there are no common targets"
    assert "no test text" in compare.compare_pairs(named, models, "test")[0]["reason"]


def test_runs_of_different_vocabularies_are_shown_but_not_compared(compared):
    found = pair(compared[1], "good", "other_run")
    assert found["verdict"] == "not compared"
    assert found["reason"].startswith("their vocabularies differ")
    column = [each["label"] for each in compared[1]["runs"]].index("other_run")
    scores = {name: values[column] for name, values in compared[1]["metrics"].items()}
    assert all(scores[name] > 1 for name in scores if "exact" in name and scores[name] is not None)
    assert scores["corpus"] == "textfile"


def test_only_keys_that_differ_are_listed(runs, tmp_path):
    comparison = compare.run(base(), str(tmp_path), None, runs=(runs["good"], runs["bad"]))
    assert comparison["differences"] == {"optim.learning_rate": [3.0, 1.0], "train.steps": [150, 30]}
    text = (tmp_path / "compare.md").read_text()
    rows = table_rows(text)
    assert ["optim.learning_rate", "3.0", "1.0"] in rows
    assert ["steps", "150", "30"] in rows
    assert "data.batch_size" not in text


def test_the_files_contain_the_comparison(compared):
    workdir, comparison = compared
    assert json.loads((workdir / "compare.json").read_text())["pairs"] == comparison["pairs"]
    assert (workdir / "curves.png").read_bytes().startswith(b"\x89PNG")
    text = (workdir / "compare.md").read_text()
    assert text.count("good is better") == 1
    assert "not compared: their vocabularies differ" in text
    page = (workdir / "report.html").read_text()
    for part in ("good is better", "not compared: their vocabularies differ", "optim.learning_rate", "data:image/svg"):
        assert part in page
    assert not list(workdir.glob(".*"))


def test_curves_show_the_runs_metrics(compared, runs):
    figure = compare.comparison_page.draw_curves(compared[1])
    panels = figure.axes
    rows = [json.loads(line) for line in Path(runs["good"], "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows]
    np.testing.assert_allclose(panels[0].lines[0].get_ydata(), losses, rtol=1e-5)
    validations = [row for row in rows if "valid_perplexity" in row]
    np.testing.assert_allclose(panels[3].lines[0].get_xdata(), [row["epoch"] for row in validations], rtol=1e-5)


def test_labels_are_the_shortest_that_distinguish_paths(tmp_path):
    a, b = tmp_path / "a" / "run", tmp_path / "b" / "run"
    assert compare.label_paths([a, b, a]) == ["a/run", "b/run", "a/run (2)"]
    assert compare.label_paths([tmp_path / "x", tmp_path / "y"]) == ["x", "y"]


def test_a_score_of_the_test_split_is_logged_in_each_run(runs, tmp_path):
    for name in ("good", "bad"):
        shutil.copytree(runs[name], tmp_path / name)
        assert not (tmp_path / name / "test_log.jsonl").exists()
    given = (str(tmp_path / "good"), str(tmp_path / "bad"))
    found = pair(compare.run(base(), str(tmp_path / "out"), None, runs=given, split="test"), "good", "bad")
    for name, run in zip("ab", given, strict=True):
        [line] = Path(run, "test_log.jsonl").read_text().splitlines()
        row = json.loads(line)
        assert (row["protocol"], row["which"], row["targets"]) == ("exact", "final", found["targets"])
        assert row["perplexity"] == pytest.approx(found[f"{name}_perplexity"])
        assert row["experiment"] == "compare"


# --- Mistakes


@pytest.fixture
def says(capfd, monkeypatch):
    monkeypatch.setattr(launch, "use_compilation_cache", lambda: None)

    def check(*arguments):
        assert launch.main(["launch.py", "--experiment=compare", *map(str, arguments)]) == 2
        [line] = capfd.readouterr().err.splitlines()
        assert line.startswith("error: ")
        return line

    return check


def test_bad_arguments_are_one_line(runs, says, tmp_path):
    good = runs["good"]
    assert "two or more runs" in says()
    assert "1 given" in says(good)
    assert f"{tmp_path}/none: there is no such directory" in says(good, tmp_path / "none")
    assert "holds no finished run: config.json, summary.json" in says(good, tmp_path)
    assert "--split: unknown 'tets'; known: train, valid, test; did you mean test?" in says(good, good, "--split=tets")
    assert "--checkpoint: unknown 'first'; known: last, best" in says(good, good, "--checkpoint=first")
    assert "holds no best checkpoint" in says(good, good, "--checkpoint=best", f"--workdir={tmp_path}")
    assert "unexpected argument" in launch_line("good")


def launch_line(*arguments):
    with pytest.raises(UserError) as caught:
        launch.launch(["launch.py", *arguments])
    return str(caught.value)


def test_a_config_of_another_version_is_one_line(runs, says, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs["good"], copy)
    config = json.loads((copy / "config.json").read_text())
    for change, expected in (
        ({"novelty": 1}, "has the unknown key novelty"),
        ({"model": config["model"] | {"hidden": "wide"}}, "model.hidden='wide'"),
        ({"data": config["data"] | {"corpus": "synthetic", "seed": -1}}, "data.seed must be at least 0, not -1"),
    ):
        (copy / "config.json").write_text(json.dumps(config | change))
        assert expected in says(runs["good"], copy, f"--workdir={tmp_path}/out")
    assert not (tmp_path / "out").exists()
