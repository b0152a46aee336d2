"""A run is used as it was trained, from its directory alone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import launch
import lm
from experiments import evaluate, export, sample, score
from lm.errors import UserError
from lm.scoring.protocols import exact_nats
from lm.training.loop import train
from lm.training.setup import make_setup
from tests.helpers import tiny
from tests.helpers.finished_run import make_finished_run, saved_config

ROOT = Path(launch.__file__).parent
TEXT = "ab cd abcd abc dabcdabcd"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(directory of a finished run, its setup)"""
    workdir = tmp_path_factory.mktemp("trained")
    return workdir, make_finished_run(workdir)


@pytest.fixture
def run_dir(trained, tmp_path):
    """A copy of the run that a test may change."""
    return shutil.copytree(trained[0], tmp_path / "run")


def test_it_opens_from_its_directory_alone(trained):
    workdir, setup = trained
    run = lm.open_run(workdir)
    assert run.config == setup.config
    assert run.vocabulary == setup.corpus.vocabulary
    assert (run.step, run.checkpoint) == (12, "last")
    nats = exact_nats(run.model, run.parameters, setup.corpus.splits["valid"])
    row = json.loads((workdir / "summary.json").read_text())["results"][0]
    assert float(nats.sum(dtype=np.float64)) == row["nats"]  # zoneout as in training, without being told


@pytest.mark.parametrize("which", ["last", "best"])
def test_an_export_is_the_run(run_dir, which):
    config = saved_config(run_dir)
    directory = export.run(config, str(run_dir), checkpoint=which)
    run, copy = lm.open_run(run_dir, which), lm.open_run(directory)
    assert (copy.step, copy.checkpoint, copy.config, copy.vocabulary) == (run.step, which, run.config, run.vocabulary)
    np.testing.assert_array_equal(run.nats(TEXT), copy.nats(TEXT))
    assert sample.run(config, str(run_dir), checkpoint=which) == sample.run(config, directory)


@pytest.mark.parametrize(
    ("key", "value"),
    [("model.cell", "elman_tanh"), ("zoneout.memory", 0.0), ("data.fractions", (0.5, 0.3, 0.2)), ("seed", 1)],
)
@pytest.mark.parametrize("command", [evaluate, sample, export, score])
def test_a_config_that_decides_other_numbers_is_refused(trained, command, key, value):
    config = saved_config(trained[0])
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=f"was trained with another config .{key}: .* -> "):
        command.run(config, str(trained[0]))


def test_an_export_is_not_evaluated(run_dir):
    """It has no checkpoints; the initial parameters would be scored in their place."""
    config = saved_config(run_dir)
    directory = export.run(config, str(run_dir))
    with pytest.raises(UserError, match="is an export: evaluate needs the run itself"):
        evaluate.run(config, directory)
    assert not Path(directory, "evaluation.json").exists()


@pytest.mark.parametrize(
    ("task", "hint"),
    [
        ("language_modelling", "; score reads an export too"),
        ("translation", "; translate reads an export too"),
        ("vectors", ""),
    ],
)
def test_the_command_that_reads_an_export_is_named(monkeypatch, task, hint):
    opened = SimpleNamespace(is_export=True, config=SimpleNamespace(task=task), check_config=lambda config: None)
    monkeypatch.setattr(evaluate, "open_run", lambda workdir: opened)
    with pytest.raises(UserError, match=f"evaluate needs the run itself{hint}$"):
        evaluate.run(None, "x")


def changed_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def other_run(directory, **changes):
    """A finished run that differs from `trained` as `changes` say, and its directory."""
    config = tiny.config(zoneout__memory=0.5, zoneout__output=0.5, model__hidden=(3, 4), checkpoint__best="keep")
    corpus = tiny.corpus()
    provenance = corpus.provenance | {"checksum": "other data"}
    train(make_setup(config, corpus._replace(provenance=provenance)), directory)
    return directory


def test_a_changed_vocabulary_is_refused(run_dir):
    changed_json(run_dir / "vocabulary.json", lambda content: content["symbols"].reverse())
    with pytest.raises(UserError, match=r"step 12 has another vocabulary than vocabulary\.json beside it"):
        lm.open_run(run_dir)


@pytest.mark.parametrize("key", ["level", "unknown"])
def test_a_vocabulary_that_reads_a_text_in_another_way_is_refused(run_dir, key):
    changed_json(run_dir / "vocabulary.json", lambda v: v.update({key: "word" if key == "level" else v["symbols"][0]}))
    with pytest.raises(UserError, match=r"has another vocabulary than vocabulary\.json"):
        lm.open_run(run_dir)


def test_a_device_is_no_text(trained, capsys):
    for arguments in (("score", "--text=/dev/zero"), ("sample", "--prompt_file=/dev/zero")):
        assert launch.main(["launch.py", f"--experiment={arguments[0]}", f"--workdir={trained[0]}", arguments[1]]) == 2
        assert f"{arguments[1]}: a device, not a file" in capsys.readouterr().err


@pytest.mark.parametrize("finished", [True, False])
def test_the_best_checkpoint_of_another_run_is_refused(run_dir, tmp_path, finished):
    """By whoever opens it, and by the run when it scores it at its end."""
    other = other_run(tmp_path / "other")
    shutil.rmtree(run_dir / "checkpoints" / "best")
    shutil.copytree(other / "checkpoints" / "best", run_dir / "checkpoints" / "best")
    if finished:
        with pytest.raises(UserError, match="in best/ was trained on other data than the last checkpoint"):
            lm.open_run(run_dir, "best")
        return
    (run_dir / "summary.json").unlink()
    setup = make_setup(saved_config(run_dir), tiny.corpus())
    summary = train(setup, run_dir)
    assert {row["which"] for row in summary["results"]} == {"final"}
    assert "holds a run on other data" in summary["not_scored"]["best"]


def test_a_renamed_checkpoint_is_not_taken_for_another_step(run_dir, capsys):
    steps = sorted((run_dir / "checkpoints" / "last").iterdir(), key=lambda path: int(path.name))
    steps[-1].rename(steps[-1].with_name("99"))
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged"):
        lm.open_run(run_dir)
    assert "99 is damaged (it was saved at step 12 and renamed)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content["config"]["zoneout"].update(output=0.0), "config.json was changed: its config is not"),
        (lambda content: content["config"]["model"].update(cell="gru"), "config.json was changed: its config is not"),
        (None, "model.safetensors is not the file that was exported with config.json"),
    ],
)
def test_an_export_knows_its_config_and_its_weights(run_dir, tmp_path, change, message):
    directory = Path(export.run(saved_config(run_dir), str(run_dir), to=str(tmp_path / "one")))
    lm.open_run(directory)
    if change:
        changed_json(directory / "config.json", change)
    else:
        best = export.run(saved_config(run_dir), str(run_dir), checkpoint="best", to=str(tmp_path / "two"))
        content = (Path(best) / "model.safetensors").read_bytes()
        (directory / "model.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=message):
        lm.open_run(directory)


def test_an_export_overwrites_no_run(run_dir, tmp_path):
    config = saved_config(run_dir)
    before = (run_dir / "config.json").read_bytes()
    with pytest.raises(UserError, match="run holds a run, which the export would overwrite"):
        export.run(config, str(run_dir), to=str(run_dir))
    assert (run_dir / "config.json").read_bytes() == before
    for _ in range(2):  # an export may be renewed
        export.run(config, str(run_dir), to=str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("temperature", -1.0, "config.sample.temperature must be"),
        ("length", 0, "config.sample.length must be at least 1, not 0"),
        ("number", 0, "config.sample.number must be at least 1, not 0"),
        ("top_p", 0.0, "config.sample.top_p must be"),
        ("seed", -1, "config.sample.seed must be"),
        ("length", 2_000_000_000_000, "sampling needs at least .* lower config.sample.number or config.sample.length"),
    ],
)
def test_sampling_keys_keep_their_rules(trained, key, value, message):
    config = saved_config(trained[0])
    config.sample[key] = value
    with pytest.raises(UserError, match=message):
        sample.run(config, str(trained[0]))


def test_evaluation_and_sampling_keys_are_free(run_dir, monkeypatch):
    monkeypatch.setattr("experiments.train.load_corpus", lambda *arguments: tiny.corpus())
    config = saved_config(run_dir)
    config.evaluation.protocols, config.evaluation.batch_size, config.evaluation.unroll = ("batched",), 2, 3
    config.sample.number, config.train.report_every = 1, 7
    summary = evaluate.run(config, str(run_dir))
    assert {row["protocol"] for row in summary["results"]} == {"batched"}
    assert len(sample.run(config, str(run_dir))) == 1


def test_an_evaluation_that_needs_more_memory_than_there_is_is_refused(run_dir, monkeypatch):
    """Before it allocates anything: the system would kill the process without a word."""
    monkeypatch.setattr("experiments.train.load_corpus", lambda *arguments: tiny.corpus())
    config = saved_config(run_dir)
    config.evaluation.protocols, config.evaluation.predictions = ("notebook",), 10**13
    with pytest.raises(UserError, match=r"memory and .* are free: lower config\.evaluation\.predictions"):
        evaluate.run(config, str(run_dir))


def test_a_corpus_with_its_symbols_swapped_is_refused(run_dir, monkeypatch):
    corpus = tiny.corpus()
    swapped = corpus._replace(vocabulary=lm.open_run(run_dir).vocabulary.__class__("char", tuple(" bacd")))
    monkeypatch.setattr("experiments.train.load_corpus", lambda *arguments: swapped)
    with pytest.raises(UserError, match="holds a run on other data"):
        evaluate.run(saved_config(run_dir), str(run_dir))
    with pytest.raises(UserError, match="was trained with another vocabulary"):
        train(make_setup(saved_config(run_dir), swapped), run_dir)


def test_the_test_split_is_not_scored_before_training_is_over(run_dir, monkeypatch):
    monkeypatch.setattr("experiments.train.load_corpus", lambda *arguments: tiny.corpus())
    monkeypatch.setattr("experiments.train.load", lambda *arguments: pytest.fail("the test split was read"))
    config = saved_config(run_dir)
    config.train.steps, config.evaluation.splits = 20, ("valid", "test")
    (run_dir / "config.json").write_text(json.dumps(config.to_dict()))
    summary = evaluate.run(config, str(run_dir))
    assert summary["not_scored"] == {"test": "the run has made 12 of 20 steps: finish it first"}
    assert not (run_dir / "test_log.jsonl").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"symbols": []}, "at least one"),
        ({"symbols": ["a", "a"]}, "must be distinct"),
        ({"unknown": "x"}, "include the unknown symbol 'x'"),
        ({"level": "letter"}, "level: unknown 'letter'; known: char, word, byte, bpe"),
        ({"symbols": [" ", "ab", "c", "d", "e"]}, "must be one character"),
    ],
)
def test_a_vocabulary_that_cannot_be_is_refused(run_dir, changes, message):
    path = run_dir / "vocabulary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=f"{path}.*{message}"):
        lm.open_run(run_dir)


# --- The command line -----------------------------------------------------------------------------------------------


def command_line(*arguments):
    return launch.main(["launch.py", *map(str, arguments)])


def test_commands_need_no_config(trained, capsys):
    assert command_line("--experiment=sample", f"--workdir={trained[0]}", "--config.sample.number=1") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert command_line("--experiment=sample", f"--config={trained[0]}/config.json") == 0
    assert command_line("--experiment=sample", f"--workdir={trained[0]}", "--config.model.cell=gru") == 2
    assert 'model.cell: "lstm" -> "gru"' in capsys.readouterr().err


def test_a_directory_without_a_run_is_named(tmp_path, capsys):
    assert command_line("--experiment=sample", f"--workdir={tmp_path}") == 2
    assert f"--workdir={tmp_path} holds no run: it has no config.json" in capsys.readouterr().err


def test_a_run_starts_from_the_config_of_another(trained, tmp_path, capsys):
    """Tuples, empty values and all: config.json of both runs is equal. The corpus is another one here."""
    given = tmp_path / "config.json"
    config = saved_config(trained[0])
    config.data.size = 3000
    given.write_text(json.dumps(config.to_dict()))
    assert command_line(f"--config={given}", "--noeta") == 2
    assert "belongs to another run: name a --workdir" in capsys.readouterr().err
    assert command_line(f"--config={given}", f"--workdir={tmp_path / 'new'}", "--noeta") == 0
    assert json.loads((tmp_path / "new" / "config.json").read_text()) == json.loads(given.read_text())
    given.write_text(json.dumps({"model": {"hiden": [3]}}))
    assert command_line(f"--config={given}", f"--workdir={tmp_path / 'none'}") == 2
    assert "unknown key model.hiden" in capsys.readouterr().err


def test_a_prompt_comes_from_a_file(trained, tmp_path, capsys):
    (tmp_path / "prompt.txt").write_text("abcd ab\n")
    arguments = ("--experiment=sample", f"--workdir={trained[0]}", "--config.sample.length=5")
    assert command_line(*arguments, f"--prompt_file={tmp_path / 'prompt.txt'}") == 0
    first, border, second = capsys.readouterr().out.splitlines()
    assert border == "-" * 40
    assert first.startswith("abcd ab")
    assert len(second) == 12
    assert command_line(*arguments, "--prompt_file=/nowhere") == 2
    assert "--prompt_file=/nowhere: No such file" in capsys.readouterr().err


@pytest.mark.slow
def test_a_terminal_that_cannot_show_a_symbol_gets_an_escape(tmp_path):
    """Also at the end of training."""
    (tmp_path / "text.txt").write_text("äöü ßé\n" * 100, encoding="utf-8")
    arguments = ["--config=configs/textfile.py", f"--config.data.path={tmp_path}/text.txt", "--config.train.epochs=0"]
    arguments += ["--config.train.steps=2", f"--workdir={tmp_path}/run", "--config.data.batch_size=2", "--noeta"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "launch.py", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "\\xe4" in done.stdout + done.stderr


# --- Scoring a text -------------------------------------------------------------------------------------------------


# --- The Python API -------------------------------------------------------------------------------------------------


def test_the_api_samples_and_looks_inside(trained):
    run = lm.open_run(trained[0])
    texts = run.sample("ab", length=9, number=3, temperature=0.5, seed=2)
    assert len(texts) == 3
    assert all(text.startswith("ab") for text in texts)
    assert texts == run.sample("ab", length=9, number=3, temperature=0.5, seed=2)
    assert run.log_probs(TEXT).shape == (len(TEXT), tiny.V)
    assert [layer.c.shape for layer in run.states(TEXT)] == [(len(TEXT), 3), (len(TEXT), 4)]
    assert [sorted(layer) for layer in run.gates(TEXT)] == [["f", "g", "i", "o"]] * 2
    with pytest.raises(UserError, match="temprature"):
        run.sample(temprature=1.0)
    with pytest.raises(UserError, match=r"config.sample.temperature must be at least 0.0001"):
        run.sample(temperature=0.0)
    with pytest.raises(UserError, match="has 0 tokens; this model reads at least 1"):
        run.log_probs("")
    assert run.sample("ab", length=9, seed=np.int64(2)) == run.sample("ab", length=9, seed=2)
    np.testing.assert_array_equal(run.nats("\ufeffab cd"), run.nats("ab cd"))  # as `score` reads a file
    assert run.tokens("\ufeffab\r\ncd\r") == run.tokens("ab\ncd\n") == [*"ab\ncd\n"]
    for wrong in (["ab"], b"ab", Path("ab"), None):
        for read in (run.nats, run.tokens, run.log_probs):
            with pytest.raises(UserError, match=f"needs a text, not a {type(wrong).__name__}"):
                read(wrong)
    with pytest.raises(UserError, match="needs the directory of a run, not None"):
        lm.open_run(None)


def test_settings_of_jax_that_change_numbers_are_named(trained, capsys):
    lm.open_run(trained[0])
    assert capsys.readouterr().err == ""
    jax.config.update("jax_random_seed_offset", 5)
    try:
        lm.open_run(trained[0])
    finally:
        jax.config.update("jax_random_seed_offset", 0)
    assert "warning: jax_random_seed_offset=5: " in capsys.readouterr().err


@pytest.mark.slow
def test_it_works_outside_the_checkout(trained, tmp_path):
    code = f"import lm; run = lm.open_run({str(trained[0])!r}); print(len(run.nats('abcd')))"
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"
