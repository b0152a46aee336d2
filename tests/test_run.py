"""A run is used as it was trained, from its directory alone."""

import io
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import load_file

import launch
import lm
from configs.ptb.lstm2 import get_config as ptb_lstm2
from experiments import evaluate, export, sample, score
from experiments import train as train_command
from lm.errors import UserError
from lm.scoring.protocols import exact_nats
from lm.training.loop import train
from lm.training.setup import make_setup
from tests.helpers import tiny
from tests.helpers.few import few

ROOT = Path(launch.__file__).parent
TEXT = "ab cd abcd abc dabcdabcd"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of two layers with zoneout, and its setup."""
    workdir = tmp_path_factory.mktemp("trained")
    config = tiny.config(zoneout__memory=0.5, zoneout__output=0.5, model__hidden=(3, 4), checkpoint__best="keep")
    setup = make_setup(config, tiny.corpus())
    train(setup, workdir)
    return workdir, setup


@pytest.fixture
def run_dir(trained, tmp_path):
    """A copy of the run that a test may change."""
    return shutil.copytree(trained[0], tmp_path / "run")


def saved_config(workdir):
    return ConfigDict(lm.open_run(workdir).config)


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
        with pytest.raises(UserError, match="in best/ was trained on other data than the last one"):
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
    assert "99 is damaged (it is of step 12 and was renamed)" in capsys.readouterr().err


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
        ({"unknown": "x"}, "with the unknown 'x' among them"),
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
    assert "is of another run: name a --workdir" in capsys.readouterr().err
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


def rows_of(workdir, monkeypatch, content, **keywords):
    stdin = io.TextIOWrapper(io.BytesIO(content.encode()))
    monkeypatch.setattr(sys, "stdin", stdin)
    return score.run(saved_config(workdir), str(workdir), **keywords)


def test_score_sums_what_the_exact_protocol_sums(trained, monkeypatch, capsys):
    run = lm.open_run(trained[0])
    total = float(exact_nats(run.model, run.parameters, run.encode(TEXT)).sum(dtype=np.float64))
    (row,) = rows_of(trained[0], monkeypatch, TEXT)
    assert row["nats"] == total
    assert row["targets"] == len(TEXT) - 1
    bits = pytest.approx(total / math.log(2) / (len(TEXT) - 1))
    assert (row["bits_per_symbol"], row["bits_per_byte"]) == (bits, bits)
    tokens = rows_of(trained[0], monkeypatch, TEXT, per="token")
    assert [each["token"] for each in tokens] == list(TEXT[1:])
    assert sum(each["nats"] for each in tokens) == pytest.approx(total, rel=1e-6)
    lines = rows_of(trained[0], monkeypatch, TEXT.replace(" ", "\n"), per="line")
    without = float(run.nats(TEXT.replace(" ", "")).sum(dtype=np.float64))  # this vocabulary has no line end
    assert sum(each["nats"] for each in lines) == pytest.approx(without, rel=1e-6)
    capsys.readouterr()
    rows_of(trained[0], monkeypatch, "abc\n", next=2)
    table = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert table[2] == ["next", "probability", "bits"]
    best = np.argsort(-run.log_probs("abc")[-1])[:2]
    assert [line[0] for line in table[3:]] == [run.vocabulary.symbols[i] for i in best]


def test_lines_are_read_each_from_zero_if_asked(trained, monkeypatch):
    run = lm.open_run(trained[0])
    rows = rows_of(trained[0], monkeypatch, "abcd\na\n\nbcda", per="line_reset")
    assert [row["targets"] for row in rows] == [3, 0, 0, 3]
    assert rows[0]["nats"] == pytest.approx(float(run.nats("abcd").sum()), rel=1e-6)
    assert rows[3]["nats"] == pytest.approx(float(run.nats("bcda").sum()), rel=1e-6)
    assert math.isnan(rows[1]["perplexity"])


@pytest.mark.parametrize("level", few(["byte", "bpe"], "bpe"))
def test_levels_compare_in_bits_per_byte(tmp_path, monkeypatch, capsys, level):
    """The whole text from the saved vocabulary alone: the tokenizer is saved with the run."""
    text = "the cat sat on the mat \u00e4\n" * 60
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    config = tiny.config(data__corpus="textfile", data__path=str(tmp_path / "text.txt"), data__level=level)
    config.data.max_vocabulary = 300 if level == "bpe" else 0
    summary = train_command.run(config, str(tmp_path / "run"))
    assert "bits per byte" in capsys.readouterr().out
    (tmp_path / "text.txt").unlink()
    [row] = rows_of(tmp_path / "run", monkeypatch, "the cat sat \u2603\n")
    first = {"byte": 1, "bpe": len(lm.open_run(tmp_path / "run").vocabulary.tokens("the cat sat \u2603\n")[0])}[level]
    assert row["bits_per_byte"] == pytest.approx(row["nats"] / math.log(2) / (16 - first))
    assert "\ufffd" not in "".join(summary["samples"])


def test_lines_of_byte_pairs_are_scored_each_by_its_own_tokens(tmp_path, monkeypatch):
    """A byte pair that crosses a line end would give one line's nats to the next."""
    text = "a cat\n\n    sat on\n\n    the mat\n" * 40
    (tmp_path / "text.txt").write_text(text)
    config = tiny.config(data__corpus="textfile", data__path=str(tmp_path / "text.txt"), data__level="bpe")
    config.data.max_vocabulary = 300
    train_command.run(config, str(tmp_path / "run"))
    run, lines = lm.open_run(tmp_path / "run"), ["a cat\n", "\n", "    sat on\n", "\n"]
    rows = rows_of(tmp_path / "run", monkeypatch, "".join(lines), per="line")
    ids = [run.vocabulary.encode(line) for line in lines]
    assert len(np.concatenate(ids)) > len(run.vocabulary.encode("".join(lines))), "no pair crosses a line end here"
    assert [row["targets"] for row in rows] == [len(ids[0]) - 1, *map(len, ids[1:])]
    nats = exact_nats(run.model, run.parameters, np.concatenate(ids))
    assert sum(row["nats"] for row in rows) == pytest.approx(float(nats.sum()), rel=1e-6)


def test_bytes_are_scored_as_they_are_trained_on(tmp_path, monkeypatch):
    """No UTF-8 is needed, and neither a byte-order mark nor a carriage return is dropped."""
    (tmp_path / "text.bin").write_bytes(b"\xef\xbb\xbfab\r\n\xe9\x00" * 60)
    config = tiny.config(data__corpus="textfile", data__path=str(tmp_path / "text.bin"), data__level="byte")
    train_command.run(config, str(tmp_path / "run"))
    content = b"\xef\xbb\xbfab\r\n\xe9\x00"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    [row] = score.run(saved_config(tmp_path / "run"), str(tmp_path / "run"))
    run = lm.open_run(tmp_path / "run")
    assert row["targets"] == len(content) - 1
    assert row["bits_per_byte"] == pytest.approx(row["bits_per_symbol"])
    assert row["nats"] == pytest.approx(
        float(exact_nats(run.model, run.parameters, np.frombuffer(content, np.uint8)).sum())
    )


def test_unknown_symbols_are_counted(tmp_path, monkeypatch, capsys):
    corpus = tiny.corpus()
    vocabulary = corpus.vocabulary.__class__("word", ("a", "b", "<eos>", "c", "<unk>"), "<unk>")
    train(make_setup(tiny.config(), corpus._replace(vocabulary=vocabulary)), tmp_path)
    (row,) = rows_of(tmp_path, monkeypatch, "a b zebra\nzebra yak <unk> ä\n")
    assert row["targets"] == 8
    assert row["bits_per_byte"] == pytest.approx(
        row["nats"] / math.log(2) / len(" b zebra\nzebra yak <unk> ä\n".encode())
    )
    assert "4 unknown tokens are read as '<unk>': 'zebra' 2, 'yak' 1, 'ä' 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "keywords", "message"),
    [
        ("abx", {}, "characters that are not in the vocabulary: 'x'"),
        ("a", {}, "too short to score: 2 tokens are needed"),
        ("", {}, "standard input: the file has no text"),
        ("abc", {"per": "word"}, "--per: unknown 'word'; known: text, line, line_reset, token"),
        ("abc", {"next": -1}, "--next must be at least 0, not -1"),
        ("abc", {"text": "/nowhere"}, "--text=/nowhere: No such file"),
    ],
)
def test_a_text_that_cannot_be_scored_is_refused(trained, monkeypatch, text, keywords, message):
    with pytest.raises(UserError, match=message):
        rows_of(trained[0], monkeypatch, text, **keywords)


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


@pytest.mark.slow
def test_the_whole_test_text_of_ptb_scores_as_the_exact_protocol_says(tmp_path, monkeypatch):
    data_dir = os.environ.get("LM_DATA_DIR")
    if not data_dir:
        pytest.skip("LM_DATA_DIR is not set")
    config = ptb_lstm2()
    config.train.epochs, config.train.steps, config.evaluation.protocols = 0, 20, ("exact",)
    config.evaluation.splits = ("test",)
    [row] = train_command.run(config, str(tmp_path), data_dir, eta=False)["results"]
    text = Path(data_dir, "ptb", "ptb.test.txt").read_text()
    tokens = rows_of(tmp_path, monkeypatch, text, per="token")
    assert row["targets"] == len(tokens) == 82_429
    assert sum(each["nats"] for each in tokens) == pytest.approx(row["nats"], rel=1e-6)
    [whole] = rows_of(tmp_path, monkeypatch, text)
    assert whole["nats"] == row["nats"]


def test_torch_gives_the_same_nats_from_the_exported_weights(tmp_path):
    torch = pytest.importorskip("torch")
    changes = {"model__input": "embedding", "model__embedding_size": 5, "model__hidden": (4, 6)}
    train(make_setup(tiny.config(**changes), tiny.corpus()), tmp_path)
    run = lm.open_run(tmp_path)
    weights = load_file(f"{export.run(run.config, str(tmp_path))}/model.safetensors")
    weights = {name: torch.from_numpy(value) for name, value in weights.items()}
    ids = torch.from_numpy(run.encode(TEXT).astype(np.int64))
    x = weights["embedding"][ids[:-1]]
    for layer, units in enumerate((4, 6)):
        lstm = torch.nn.LSTM(x.shape[1], units)
        parts = {"weight_ih_l0": "w_x", "weight_hh_l0": "w_h", "bias_ih_l0": "b"}
        ours = {name: weights[f"layer_{layer}.{part}"] for name, part in parts.items()}
        state = {name: value.T if value.ndim == 2 else value for name, value in ours.items()}
        lstm.load_state_dict(state | {"bias_hh_l0": torch.zeros(4 * units)})
        x = lstm(x)[0]
    logits = x @ weights["output_kernel"] + weights["output_bias"]
    nats = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none").detach().numpy()
    np.testing.assert_allclose(run.nats(TEXT), nats, rtol=1e-5)


@pytest.mark.slow
def test_it_works_outside_the_checkout(trained, tmp_path):
    code = f"import lm; run = lm.open_run({str(trained[0])!r}); print(len(run.nats('abcd')))"
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"
