"""Sequence to sequence: sums as pairs, and a run that writes."""

import re

import numpy as np
import pytest

import launch
from experiments.train import load_setup
from lm.data.corpora import load as load_corpus
from lm.data.pair_corpora import addition
from lm.errors import UserError
from lm.run import open_run
from lm.scoring.bleu import bleu
from lm.training.loop import train
from tests.helpers.task_configs import config_of


@pytest.fixture
def config(tmp_path):
    return config_of("translation", tmp_path)


def shown(vocabulary, examples):
    """Each sequence as text, without its END."""
    ends = examples.starts[1:-1]
    return [vocabulary.decode(ids[:-1]) for ids in np.split(examples.tokens, ends)]


def test_sums_are_right_and_held_out(config):
    vocabulary, arrays, _ = addition(config.data, None, ("train", "valid", "test"), None)
    assert {name: len(pairs) for name, pairs in arrays.items()} == {"train": 200, "valid": 1000, "test": 1000}
    seen = {}
    for name, pairs in arrays.items():
        sources, targets = shown(vocabulary, pairs.source), shown(vocabulary, pairs.target)
        for source, target in zip(sources, targets, strict=True):
            a, b = map(int, source.split("+"))
            assert a + b == int(target)
            assert a <= b < 1000
            assert a < 100
        seen[name] = set(sources)
    assert not seen["valid"] & (seen["train"] | seen["test"])
    assert not seen["test"] & seen["train"]


@pytest.mark.slow
def test_a_small_model_learns_to_copy_sums_of_its_own(tmp_path, config):
    """The accuracy of a score counts whole targets, as `translate` writes them."""
    config.model.hidden, config.train.steps, config.evaluation.splits = (32,), 60, ("train",)
    config.data.size, config.keep_prob.output, config.loss.teacher_forcing = 8, 1.0, 1.0
    config.data.batch_size, config.data.buckets = 8, 1
    setup = load_setup(config, None)
    summary = train(setup, tmp_path / "run")
    run, pairs = open_run(tmp_path / "run"), setup.corpus.splits["train"]
    sources, targets = shown(run.vocabulary, pairs.source), shown(run.vocabulary, pairs.target)
    written = run.translate([*sources, ""])
    assert written.pop() == ""
    right = np.mean([a == b for a, b in zip(written, targets, strict=True)])
    assert summary["results"][0]["sequence_accuracy"] == right > 0.5
    with pytest.raises(UserError, match="line 2: the vocabulary lacks 'a', 'b'"):
        run.translate(["1+2", "b+a", "c"])
    with pytest.raises(UserError, match="needs a list of lines, not a single text"):
        run.translate("1+2")
    with pytest.raises(UserError, match=r"run\.translate needs a text, not a int"):
        run.translate(["1+2", 3])


@pytest.mark.slow
def test_the_command(tmp_path, config, capsys, monkeypatch):
    train(load_setup(config, None), tmp_path / "run")
    (tmp_path / "lines").write_text("1+2\n\n" + "1" * 400 + "\n")
    arguments = ["launch.py", "--experiment=translate", f"--workdir={tmp_path}/run", f"--text={tmp_path}/lines"]
    capsys.readouterr()
    assert launch.main(arguments) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert launch.main([*arguments, "--config.sample.beams=3"]) == 0
    assert launch.main(["launch.py", "--experiment=sample", f"--workdir={tmp_path}/run"]) == 2
    assert "config.task=translation, and --experiment=sample needs" in capsys.readouterr().err
    for flags in ([], ["--per=line"]):
        assert launch.main(["launch.py", "--experiment=score", f"--workdir={tmp_path}/run", *flags]) == 2
        said = r"and --experiment=score needs config.task=language_modelling( or \w+)*; use --experiment=translate"
        assert re.search(said, capsys.readouterr().err)


def test_pairs_are_needed(config):
    config.data.corpus = "synthetic"
    with pytest.raises(UserError, match=r"config\.task=translation needs pairs"):
        load_setup(config, None)


@pytest.mark.slow
def test_forcing_draws_without_dropout(tmp_path, config):
    """And the draws are the same each time."""
    config.keep_prob.output, config.loss.teacher_forcing = 1.0, 0.5
    losses = [train(load_setup(config, None), tmp_path / name)["train"]["final_mean_loss"] for name in "ab"]
    config.loss.teacher_forcing = 1.0
    assert losses[0] == losses[1] != train(load_setup(config, None), tmp_path / "c")["train"]["final_mean_loss"]


@pytest.mark.slow
def test_forcing_that_has_fallen_to_nothing_is_none(tmp_path, config):
    """A linear schedule of one step forces the first step alone: after it, training is that without forcing."""
    config.keep_prob.output, config.train.steps = 1.0, 1
    ends = {}
    for first, schedule, steps in [(1.0, "constant", 0), (1.0, "linear", 1), (0.0, "constant", 0)]:
        config.loss.teacher_forcing, config.loss.forcing_schedule, config.loss.forcing_steps = first, schedule, steps
        for number in (1, 3):
            config.train.steps = number
            directory = tmp_path / f"{first}{schedule}{number}"
            ends[first, schedule, number] = train(load_setup(config, None), directory)["train"]["final_mean_loss"]
    assert ends[1.0, "linear", 1] == pytest.approx(ends[1.0, "constant", 1], rel=1e-6)
    assert ends[1.0, "linear", 3] != pytest.approx(ends[1.0, "constant", 3], rel=1e-6)
    assert ends[1.0, "linear", 3] != pytest.approx(ends[0.0, "constant", 3], rel=1e-6)


def test_a_schedule_needs_steps(config):
    config.loss.forcing_schedule = "linear"
    with pytest.raises(UserError, match=r"forcing_steps=0 does not fit forcing_schedule=linear: constant needs 0"):
        load_setup(config, None)


@pytest.mark.parametrize(("key", "value"), [("max_tokens", 5), ("padding", "front_unmasked"), ("window", 3)])
def test_pairs_are_read_whole(config, key, value):
    config.data[key] = value
    with pytest.raises(UserError, match=rf"config\.data\.{key} must be .* with config\.task=translation"):
        load_setup(config, None)


PAIRS = "ein hund\ta dog\neine katze\ta cat\nein haus\tthe house\nein hund läuft\ta dog runs\n"
LONGER = "ein hund läuft hier\ta dog runs here\neine katze schläft da\ta cat is sleeping there\n"


@pytest.mark.parametrize(("key", "value"), [("level", "word"), ("fractions", (0.5, 0.25, 0.25))])
def test_keys_of_texts_are_refused(config, key, value):
    config.data[key] = value
    with pytest.raises(UserError, match=rf"config\.data\.{key} is not read with config\.task=translation"):
        load_setup(config, None)


def own_pairs(tmp_path, config, text=PAIRS):
    (tmp_path / "pairs.tsv").write_text(text)
    config.data.corpus, config.data.path = "pairs", str(tmp_path / "pairs.tsv")
    config.data.valid_share, config.evaluation.splits = 0.0, ("train",)
    config.data.batch_size, config.data.buckets = 2, 1
    return config


def test_own_pairs_of_words(tmp_path, config):
    """Each side has its own symbols; rare and new words are <unk>, and BLEU compares with the words as they were."""
    config = own_pairs(tmp_path, config)
    config.data.min_count = 2
    corpus = load_corpus(config.data, None)
    assert corpus.vocabulary.symbols == ("<eos>", "<unk>", "ein", "hund")
    assert corpus.vocabulary.targets == ("<eos>", "<unk>", "a", "dog")
    train = corpus.splits["train"]
    assert train.texts == ("a dog", "a cat", "the house", "a dog runs")
    assert train.source.tokens.tolist() == [2, 3, 0, 1, 1, 0, 2, 1, 0, 2, 3, 1, 0]
    assert train.target.tokens.tolist() == [2, 3, 0, 2, 1, 0, 1, 1, 0, 2, 3, 1, 0]


@pytest.mark.parametrize(
    ("tokenizer", "text"),
    [
        ("spaces", "The Cat, sat."),
        ("lower", "the cat, sat."),
        ("keras", "the cat sat"),
        ("characters", "The  Cat, sat."),
    ],
)
def test_bleu_compares_with_the_tokens_of_the_target(tmp_path, config, tokenizer, text):
    """A model that writes these tokens must score 100."""
    config = own_pairs(tmp_path, config, "Le chat\tThe  Cat, sat.\n" * 3)
    config.data.tokenizer = tokenizer
    assert load_corpus(config.data, None).splits["train"].texts == (text,) * 3


@pytest.mark.slow
def test_a_run_on_own_pairs_scores_and_translates(tmp_path, config, capsys):
    config = own_pairs(tmp_path, config, LONGER)
    config.model.hidden, config.model.context, config.train.steps = (24,), "fed", 150
    config.keep_prob.output, config.loss.teacher_forcing = 1.0, 1.0
    config.evaluation.protocols = ("exact", "beam", "free_running")
    setup = load_setup(config, None)
    summary = train(setup, tmp_path / "run")
    exact, beam, free = summary["results"]
    assert [row["bleu"] for row in (exact, beam, free)] == [pytest.approx(100.0)] * 3
    assert exact["nats"] == beam["nats"] < free["nats"] + 1e-3
    (tmp_path / "lines").write_text("ein hund läuft hier\n\nein pferd\u2028\n")
    arguments = ["launch.py", "--experiment=translate", f"--workdir={tmp_path}/run", f"--text={tmp_path}/lines"]
    capsys.readouterr()
    assert launch.main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out.split("\n")[:2] == ["a dog runs here", ""]
    assert captured.out.count("\n") == 3, "a line for each line"
    assert captured.err == "1 unknown tokens are read as '<unk>': 'pferd' 1\n"
    shown = summary["examples"][1]
    assert shown["source"] == ["eine", "katze", "schläft", "da", "<eos>"]
    assert shown["written"] == ["a", "cat", "is", "sleeping", "there", "<eos>"]
    np.testing.assert_allclose(np.sum(shown["attention"], axis=1), 1.0, atol=0.01)
    assert np.shape(shown["attention"]) == (6, 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ein hund\ta dog\nein hund\n", "line 2: it has 1 columns, and the rows before it have 2"),
        ("ein hund\ta dog\n \ta cat\n", "line 2: the source is empty"),
        ("ein hund\ta dog\nein\t \n", "line 2: the target is empty"),
        ("ein hund\ta dog\nein\t!\n", "line 2: the target is empty"),
    ],
)
def test_bad_pairs_are_refused_by_line(tmp_path, config, text, message):
    config.data.tokenizer = "keras"  # which drops punctuation
    with pytest.raises(UserError, match=message):
        load_setup(own_pairs(tmp_path, config, text), None)


def test_bleu_of_known_texts():
    """One word wrong: precisions 5/6, 3/5 and 1/4; 0/3 counts as half a run in 3 (Papineni et al. 2002, Post 2018)."""
    found = bleu(["the cat sat on the mat"], ["the cat lay on the mat"])
    assert found == pytest.approx(100 * (5 / 6 * 3 / 5 * 1 / 4 * 0.5 / 3) ** 0.25)
    assert bleu(["a b c d"], ["a b c d"]) == pytest.approx(100.0)
