"""Fine-tuning: a run that starts from another run's parameters and vocabulary, or from word vectors."""

import shutil

import jax
import numpy as np
import pytest

import lm
from experiments import evaluate, export, train
from lm.data.text import Vocabulary
from lm.data.vectors import read_vectors
from lm.errors import UserError
from lm.runs.provenance import identity
from tests.helpers import labelled, tiny
from tests.helpers.few import few

TEXT = "the cat sat on the mat\nthe dog sat on the cat\n" * 30


def config(path, level="char", **changes):
    made = tiny.config(
        data__corpus="textfile",
        data__path=str(path),
        data__level=level,
        data__fractions=(0.8, 0.1, 0.1),
        data__batching="rows",
        **changes,
    )
    made.evaluation.splits = ("valid", "test")
    return made


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def assert_equal(a, b):
    for ours, theirs in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture
def first(tmp_path):
    """A finished run on TEXT."""
    train.run(config(write(tmp_path / "first.txt", TEXT)), tmp_path / "first")
    return tmp_path / "first"


def start(settings):
    return train.load_setup(settings, None)


@pytest.mark.slow
def test_parameters_and_vocabulary_come_from_a_run_or_its_export(first, tmp_path, capsys):
    run = lm.open_run(first)
    directory = export.run(run.config, str(first))
    other = write(tmp_path / "other.txt", "a mad hen ate the neat hog\n" * 30)  # no new symbol, fewer and others
    for source in (first, directory):
        setup = start(config(other, init_from=str(source)))
        assert_equal(setup.initial_state().parameters, run.parameters)
        assert setup.corpus.vocabulary == run.vocabulary
        assert f"starting from the parameters of {source}" in capsys.readouterr().out
    tuned = train.run(config(other, init_from=str(first), optim__learning_rate=0.1), tmp_path / "tuned")
    own = train.run(config(other, optim__learning_rate=0.1), tmp_path / "own")
    assert tuned["results"][0]["perplexity"] < own["results"][0]["perplexity"]
    assert tuned["provenance"]["data"]["start"] == f"starting from the parameters of {first}"


def test_text_that_the_first_run_was_trained_on_is_no_test_text(first, tmp_path, capsys):
    """Of a run and of its export; the path of its text may be another one."""
    directory = export.run(lm.open_run(first).config, str(first))
    (tmp_path / "first.txt").rename(tmp_path / "moved.txt")
    settings = config(tmp_path / "moved.txt", init_from=str(first))
    start(settings)
    assert "config.init_from" not in capsys.readouterr().err
    settings.data.fractions = (0.1, 0.45, 0.45)
    for source in (str(first), directory):
        settings.init_from = source
        start(settings)
        lines = capsys.readouterr().err.splitlines()
        assert [line for line in lines if "config.init_from" in line] == [
            f"warning: config.init_from={source} was trained on validation or test text of this run, so the scores "
            "mislead: config.data.fractions is (0.8, 0.1, 0.1) there, (0.1, 0.45, 0.45) here"
        ]


def test_what_a_run_starts_from_is_part_of_its_identity_and_its_path_is_not(first, tmp_path):
    settings = config(tmp_path / "first.txt", init_from=str(first))
    moved = config(tmp_path / "first.txt", init_from=str(first.rename(tmp_path / "moved")))
    checksum = start(moved).corpus.provenance["checksum"]
    text, _, parameters = checksum.partition("+")
    assert len(parameters) == 16
    assert identity(settings, checksum) == identity(moved, checksum)
    assert identity(moved, checksum) != identity(moved, text)


def test_a_fine_tuned_run_resumes_and_is_used_without_the_first(first, tmp_path):
    settings = config(tmp_path / "first.txt", init_from=str(first))
    summary = train.run(settings, tmp_path / "tuned")
    longer = config(tmp_path / "first.txt", init_from=str(first), train__steps=20)
    resumed = train.run(longer, tmp_path / "tuned")
    straight = train.run(longer, tmp_path / "straight")
    assert resumed["results"] == straight["results"]
    first.rename(tmp_path / "gone")
    run = lm.open_run(tmp_path / "tuned")
    assert evaluate.run(run.config, str(tmp_path / "tuned"))["results"] == resumed["results"]
    assert resumed["results"][0]["nats"] != summary["results"][0]["nats"]
    with pytest.raises(UserError, match="first holds no run"):
        train.run(longer, tmp_path / "again")


@pytest.mark.slow
def test_a_run_resumes_without_the_run_that_it_started_from(first, tmp_path, capsys):
    settings = config(tmp_path / "first.txt", init_from=str(first))
    longer = config(tmp_path / "first.txt", init_from=str(first), train__steps=20)
    straight = train.run(longer, tmp_path / "straight")
    train.run(settings, tmp_path / "tuned")
    shutil.rmtree(first)
    resumed = train.run(longer, tmp_path / "tuned")
    assert f"{first} is gone: resuming from the run's own checkpoint" in capsys.readouterr().out
    assert resumed["results"] == straight["results"]
    for key in ("identity", "config"):
        assert resumed["provenance"][key] == straight["provenance"][key]
    (tmp_path / "first.txt").write_text(TEXT[::-1])
    with pytest.raises(UserError, match="its corpus textfile has changed since"):
        train.run(longer, tmp_path / "tuned")


@pytest.mark.slow
def test_a_run_resumes_without_its_word_vectors(tmp_path):
    settings = embedded(tmp_path)
    straight = train.run(embedded(tmp_path, train__steps=20), tmp_path / "straight")
    train.run(settings, tmp_path / "run")
    settings.train.steps = 20
    (tmp_path / "vectors.txt").unlink()
    assert train.run(settings, tmp_path / "run")["results"] == straight["results"]


def test_a_run_that_started_elsewhere_is_named(first, tmp_path):
    """What has changed is not the text."""
    settings = config(tmp_path / "first.txt", init_from=str(first))
    train.run(settings, tmp_path / "tuned")
    settings.init_from = ""
    before = (tmp_path / "tuned" / "config.json").read_text()
    with pytest.raises(
        UserError, match=r"it started from another run or from word vectors: set config.init_from or .*json"
    ):
        train.run(settings, tmp_path / "tuned")
    assert (tmp_path / "tuned" / "config.json").read_text() == before, "it names the value to set"
    settings.init_from = str(tmp_path / "tuned")
    with pytest.raises(
        UserError, match=r"config\.init_from=.*tuned is not what it started from: use another directory"
    ):
        train.run(settings, tmp_path / "tuned")


def test_a_run_that_starts_elsewhere_is_another_run(first, tmp_path):
    train.run(config(tmp_path / "first.txt"), tmp_path / "drawn")
    with pytest.raises(
        UserError, match=r"holds a run on other data: its parameters were drawn, not read from config.init_from"
    ):
        train.run(config(tmp_path / "first.txt", init_from=str(first), train__steps=20), tmp_path / "drawn")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__hidden": (4,)}, r"config.model.hidden is \[3\] there, \[4\] here: set the values of that run"),
        ({"model__cell": "gru"}, "config.model.cell is 'lstm' there, 'gru' here"),
        ({"model__embedding_from": "x"}, "init_from and config.model.embedding_from are both set"),
    ],
)
def test_a_model_of_another_shape_is_refused(first, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        start(config(tmp_path / "first.txt", init_from=str(first), **changes))


def test_a_run_of_another_task_is_refused(first, tmp_path):
    """Also before its vocabulary meets the texts."""
    path = labelled.write_tsv(tmp_path / "labelled.tsv")
    for made in (labelled.config(path, init_from=str(first)), config(path, init_from=str(first), task="translation")):
        with pytest.raises(UserError, match=f"of config.task=language_modelling, and this config has {made.task}"):
            start(made)


def test_a_text_is_cut_as_in_the_run_that_it_starts_from(first, tmp_path):
    with pytest.raises(UserError, match=r"config\.data\.level must be char, as in config\.init_from="):
        start(config(tmp_path / "first.txt", level="word", init_from=str(first)))


@pytest.mark.slow
def test_symbols_that_the_vocabulary_lacks_are_named_or_become_unknown(first, tmp_path):
    with pytest.raises(UserError, match="characters that are not in the vocabulary: 'z'"):
        start(config(write(tmp_path / "z.txt", "the zoo\n" * 60), init_from=str(first)))
    words = tmp_path / "words"
    write(tmp_path / "w.txt", "the cat sat\n" * 90 + "the dog ran\n" * 20)  # valid and test make <unk> needed
    train.run(config(tmp_path / "w.txt", level="word"), words)
    assert lm.open_run(words).vocabulary.unknown == "<unk>"
    setup = start(config(write(tmp_path / "y.txt", "the zebra sat\n" * 110), level="word", init_from=str(words)))
    assert setup.corpus.provenance["unknown_rate"]["train"] == pytest.approx(0.25, abs=0.01)


# --- Word vectors ---------------------------------------------------------------------------------------------------

VECTORS = "the 1 2\ncat 0.5 -0.25\nzebra 7 7\n<eos> 3e-1 4\nthe 9 9\n"


def embedded(tmp_path, vectors=VECTORS, **changes):
    settings = {
        "model__input": "embedding",
        "model__embedding_size": 2,
        "model__embedding_from": str(write(tmp_path / "vectors.txt", vectors)),
    }
    return config(write(tmp_path / "text.txt", TEXT), level="word", **settings | changes)


def test_vectors_are_put_in_by_word_and_the_rest_is_drawn(tmp_path, capsys):
    settings = embedded(tmp_path)
    setup = start(settings)
    symbols = setup.corpus.vocabulary.symbols
    found = setup.initial_state().parameters
    settings.model.embedding_from = ""
    drawn = start(settings).initial_state().parameters
    for row, symbol in enumerate(symbols):
        expected = {"the": [1, 2], "cat": [0.5, -0.25], "<eos>": [0.3, 4]}.get(symbol, drawn["embedding"][row])
        np.testing.assert_array_equal(found["embedding"][row], np.float32(expected))
    assert_equal(found["layer_0"], drawn["layer_0"])
    assert f"3 of {len(symbols)} symbols ({3 / len(symbols):.1%}) have a vector" in capsys.readouterr().out


def test_a_word_without_a_vector_has_that_of_its_lower_case_if_asked_for(tmp_path):
    path = str(write(tmp_path / "v.txt", "the 1 2\ncat 3 4\nCat 5 6\n<unk> 7 8\n"))
    vocabulary = Vocabulary("word", ("The", "cat", "Cat", "CAT", "Dog", "<unk>"), "<unk>")
    none = [np.nan, np.nan]
    for case, the, upper, found in (("exact", none, none, 3), ("lower", [1, 2], [3, 4], 5)):
        table = read_vectors(path, vocabulary, 2, case=case)
        np.testing.assert_array_equal(table.table, np.float32([the, [3, 4], [5, 6], upper, none, [7, 8]]))
        assert table.found == found


@pytest.mark.slow
def test_a_word_that_training_lacks_keeps_its_vector_or_zeros(tmp_path):
    """config.data.words=all_splits. After training too: no gradient reaches it."""
    paths = [
        write(tmp_path / name, text)
        for name, text in (("a", "the cat\tx\nthe dog\ty\n"), ("b", "zebra owl\tx\nowl\ty\n"))
    ]
    settings = {"data__valid_path": str(paths[1]), "data__words": "all_splits", "optim__weight_decay": 0.0}
    made = labelled.config(paths[0], model__embedding_size=2, **settings)
    with pytest.raises(UserError, match=r"config\.data\.words=all_splits needs config\.model\.embedding_from"):
        start(made)
    made.model.embedding_from = str(write(tmp_path / "v.txt", VECTORS))
    symbols = start(made).corpus.vocabulary.symbols
    train.run(made, tmp_path / "run")
    table = dict(zip(symbols, np.asarray(lm.open_run(tmp_path / "run").parameters["embedding"]), strict=True))
    assert {word: table[word].tolist() for word in ("zebra", "owl", "<unk>")} == {
        "zebra": [7.0, 7.0],
        "owl": [0.0, 0.0],
        "<unk>": [0.0, 0.0],
    }
    assert (table["cat"] != [0.5, -0.25]).all()
    assert table["dog"].any()


@pytest.mark.slow
@pytest.mark.parametrize("optimiser", few(["sgd", "adam", "adamw"], "adamw"))
def test_frozen_vectors_stay_and_all_else_learns(tmp_path, optimiser):
    settings = embedded(tmp_path, optim__frozen=("embedding",), optim__name=optimiser, optim__weight_decay=0.1)
    before = start(settings).initial_state().parameters
    train.run(settings, tmp_path / "run")
    after = lm.open_run(tmp_path / "run").parameters
    np.testing.assert_array_equal(after["embedding"], before["embedding"])
    assert (np.asarray(after["layer_0"]["w_x"]) != np.asarray(before["layer_0"]["w_x"])).any()


def test_a_frozen_parameter_does_not_count_in_the_gradient_norm(tmp_path):
    """All frozen: the norm is 0, so that it does not clip what is trained."""
    everything = ("embedding", "layer_0", "output_kernel", "output_bias")
    train.run(embedded(tmp_path, optim__frozen=everything), tmp_path / "run")
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert all('"gradient_norm": 0.0' in row for row in rows)


@pytest.mark.parametrize(
    ("vectors", "changes", "message"),
    [
        ("the 1 2\ncat 1\n", {}, r"vectors.txt, line 2: 1 numbers after the word, not 2"),
        ("the 1 2 3\ncat 4 5 6\n", {}, "its vectors have 3 numbers, but config.model.embedding_size is 2"),
        ("the 1 x\n", {}, "the vector of 'the' is not of 2 finite numbers in 32 bits"),
        ("the 1 inf\n", {}, "the vector of 'the' is not of 2 finite numbers in 32 bits"),
        ("cat 1 2\nthe nan nan\n", {}, "the vector of 'the' is not of 2 finite numbers in 32 bits"),
        ("the 1 21e99\n", {}, "the vector of 'the' is not of 2 finite numbers in 32 bits"),
        ("zebra 1 2\n", {}, "no symbol of the corpus has a vector in this file"),
        (VECTORS, {"model__embedding_from": "/nowhere"}, "/nowhere: No such file or directory"),
        (VECTORS, {"model__input": "one_hot"}, "needs config.model.input=embedding, not one_hot"),
        (
            VECTORS,
            {"optim__frozen": ("embeding",)},
            "config.optim.frozen: unknown .embeding.; known: embedding",
        ),
    ],
)
def test_vectors_that_do_not_fit_are_refused(tmp_path, vectors, changes, message):
    with pytest.raises(UserError, match=message):
        start(embedded(tmp_path, vectors, **changes))


def test_a_header_is_skipped(tmp_path):
    path = write(tmp_path / "v.vec", "3 2\nthe 1 2\ncat 3 4 \n")
    table, found = read_vectors(str(path), Vocabulary("word", ("cat", "dog", "the")), 2)
    assert found == 2
    np.testing.assert_array_equal(table, np.float32([[3, 4], [np.nan, np.nan], [1, 2]]))
