"""Text that a run is scored on and that the run it starts from was trained on."""

import pytest

from configs.base import base
from lm.data.corpora import checksum
from lm.data.reused import trained_on

DIVIDED = "that run divided the training files differently, or trained on all of them"


def data(corpus, **values):
    made = base().data
    made.update({"corpus": corpus, **values})
    return made


def reused(ours, theirs) -> str:
    return trained_on(ours, theirs, checksum(theirs))


@pytest.mark.parametrize(
    ("corpus", "ours", "theirs", "found"),
    [
        ("tiny_shakespeare", {}, {}, ""),
        ("tiny_shakespeare", {"fractions": (0.5, 0.5, 0.0)}, {}, "config.data.fractions is (0.9, 0.05, 0.05) there"),
        ("tiny_shakespeare", {}, {"fractions": (0.5, 0.5, 0.0)}, ""),  # less was training text
        ("tiny_shakespeare", {"fractions": (0.9, 0.1, 0.0)}, {}, ""),  # the same was
        ("text8", {"valid_chars": 2000}, {}, "config.data.valid_chars is 1000 there, 2000 here"),
        ("text8", {"valid_chars": 500}, {}, ""),
        ("text8", {}, {"corpus": "text8_90_5_5"}, DIVIDED),
        ("text8_90_5_5", {}, {"corpus": "text8"}, DIVIDED),
        ("text8_90_5_5", {}, {}, ""),
        ("enwik8", {"seed": 3}, {}, ""),
        ("wikitext2", {"seed": 3}, {}, ""),  # three members of one archive
        ("imdb", {"seed": 3}, {}, "config.data.seed is 0 there, 3 here"),
        ("imdb", {"valid_share": 0.2}, {}, "config.data.valid_share is 0.1 there, 0.2 here"),
        ("imdb", {"valid_share": 0.05}, {}, ""),
        ("imdb", {"valid_share": 0.0, "seed": 3}, {}, ""),  # nothing is drawn
        ("imdb", {}, {"corpus": "imdb_test_as_valid"}, DIVIDED),
        ("imdb_test_as_valid", {}, {"corpus": "imdb"}, ""),  # the other half
        ("conll2003_ner", {"seed": 3}, {}, ""),  # a file for each split
        ("ptb", {"seed": 3}, {}, ""),
        ("multi30k", {"seed": 3}, {}, ""),
        ("addition", {"seed": 3}, {}, "config.data.seed is 0 there, 3 here"),
        ("addition", {"size": 3}, {}, ""),
        ("synthetic", {"seed": 3}, {}, ""),  # another language
        ("parity", {"seed": 3}, {}, ""),
    ],
)
def test_registered_texts_that_were_divided_otherwise_are_named(corpus, ours, theirs, found):
    there = reused(data(corpus, **ours), data(**{"corpus": corpus} | theirs))
    assert there.startswith(found) if found else there == ""


@pytest.fixture
def files(tmp_path):
    """{name: a file with text of its own}"""
    paths = {name: tmp_path / f"{name}.txt" for name in "abv"}
    for name, path in paths.items():
        path.write_text(f"text of {name}\n" * 20)
    (tmp_path / "copy.txt").write_bytes(paths["a"].read_bytes())
    return {name: str(path) for name, path in paths.items()} | {"copy": str(tmp_path / "copy.txt")}


@pytest.mark.parametrize(
    ("ours", "theirs", "found"),
    [
        ({"path": "a", "fractions": (0.1, 0.45, 0.45)}, {"path": "a"}, "config.data.fractions is (0.9, 0.05, 0.05)"),
        ({"path": "copy", "fractions": (0.1, 0.45, 0.45)}, {"path": "a"}, "config.data.fractions is"),
        ({"path": "a", "fractions": (0.1, 0.45, 0.45)}, {"path": "b"}, ""),
        ({"path": "a"}, {"path": "a", "valid_path": "v"}, DIVIDED),
        ({"path": "b", "valid_path": "a"}, {"path": "a"}, "config.data.valid_path="),
        ({"path": "b", "test_path": "copy"}, {"path": "a", "valid_path": "v"}, "config.data.test_path="),
        ({"path": "b", "valid_path": "v"}, {"path": "a", "valid_path": "v"}, ""),
        ({"path": "a", "valid_path": "v"}, {"path": "a"}, ""),
    ],
)
def test_own_files_that_were_training_text_are_named(files, ours, theirs, found):
    here, there = (
        data("textfile", **{key: files[value] if key.endswith("path") else value for key, value in values.items()})
        for values in (ours, theirs)
    )
    said = reused(here, there)
    assert said.startswith(found) if found else said == ""


def test_files_that_are_gone_or_changed_are_known_by_their_checksum(files, tmp_path):
    here = data("textfile", path=files["copy"], fractions=(0.1, 0.45, 0.45))
    there = data("textfile", path=str(tmp_path / "gone.txt"))
    known = checksum(here)
    assert "config.data.fractions is" in trained_on(here, there, known)
    assert trained_on(here, there, "0" * 16) == ""
    assert trained_on(here, there, "") == ""
    there.path = files["b"]  # other text now
    assert "config.data.fractions is" in trained_on(here, there, known)


@pytest.mark.parametrize("corpus", ["labelled", "pairs"])
def test_examples_that_were_drawn_otherwise_are_named(files, corpus):
    there = data(corpus, path=files["a"])
    for key, value in (("seed", 5), ("header", "first_line"), ("format", "csv")):
        assert f"config.data.{key} is" in reused(data(corpus, path=files["a"], **{key: value}), there)
    assert reused(data(corpus, path=files["a"], valid_path=files["v"], seed=5), there) == ""
