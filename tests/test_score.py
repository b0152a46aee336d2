"""`score`: nats of a text by a trained run, per text, line and token."""

import io
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import lm
from configs.ptb.lstm2 import get_config as ptb_lstm2
from experiments import export, score
from experiments import train as train_command
from lm.errors import UserError
from lm.scoring.protocols import exact_nats
from lm.training.loop import train
from lm.training.setup import make_setup
from tests.helpers import tiny
from tests.helpers.few import few
from tests.helpers.finished_run import make_finished_run, saved_config

TEXT = "ab cd abcd abc dabcdabcd"
MODELS = Path(__file__).parents[1] / "docs" / "models"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(directory of a finished run, its setup)"""
    workdir = tmp_path_factory.mktemp("trained")
    return workdir, make_finished_run(workdir)


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
    assert "no newline: each line continues the one before it" in capsys.readouterr().err
    rows_of(trained[0], monkeypatch, "abc\n", next=2)
    table = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert table[2] == ["next", "probability", "bits"]
    best = np.argsort(-run.log_probs("abc")[-1])[:2]
    assert [line[0] for line in table[3:]] == [run.vocabulary.symbols[i] for i in best]


@pytest.mark.parametrize(
    ("model", "text"),
    [("text8_lstm_fused", "\nthe cat"), ("text8_bigram", "\nthe cat"), ("text8_bigram", "a\nthe cat")],
)
def test_first_tokens_without_a_score_may_reach_past_the_first_line(model, text):
    """Each symbol is a byte, so that bits per byte are bits per symbol."""
    first, second = score.per_line(lm.open_run(MODELS / model), text)
    assert first["targets"] == 0
    assert math.isnan(first["bits_per_byte"])
    assert second["targets"] in (5, 6)
    assert second["bits_per_byte"] == pytest.approx(second["bits_per_symbol"], rel=1e-12)


def test_other_protocols_are_refused(trained, monkeypatch):
    config = saved_config(trained[0])
    config.evaluation.temperature = 0.5
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ab")))
    with pytest.raises(UserError, match=r"config\.evaluation\.temperature \(1\.0 -> 0\.5\) is not read by score"):
        score.run(config, str(trained[0]))


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
