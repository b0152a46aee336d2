"""Word vectors: what is read from a file, and which words are nearest."""

import json
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from experiments import neighbours
from lm.data import vectors as word_vectors
from lm.data.vectors import WordVectors, load_glove, nearest_words, parse_expression, project, read_word_vectors
from lm.errors import UserError

TEXT = "up 0 2\nright 3 0\ndiagonal 1 1\ndown 0 -1\nnothing 0 0\n"


def read(path):
    return read_word_vectors(str(path), str(path))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text(TEXT)
    return str(path)


def zipped(path, *members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return str(path)


def test_a_text_an_archive_and_a_header_give_the_same_vectors(file, tmp_path):
    plain = read(file)
    assert plain.words == ("up", "right", "diagonal", "down", "nothing")
    np.testing.assert_array_equal(plain.table, np.float32([[0, 2], [3, 0], [1, 1], [0, -1], [0, 0]]))
    archive = read(zipped(tmp_path / "a.zip", ("vectors.txt", TEXT)))
    headed = tmp_path / "headed.vec"
    headed.write_text("5 2\n" + TEXT.replace("\n", " \r\n"))
    for other in (archive, read(headed)):
        assert other.words == plain.words
        np.testing.assert_array_equal(other.table, plain.table)
    assert archive.sha256 == plain.sha256


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n", "line 1: 0 numbers after the word$"),
        ("up 1 2\nright 1\n", "line 2: 1 numbers after the word, not 2"),
        ("up 1 x\n", "the vector of 'up' is not of 2 finite numbers"),
        ("up 1 2\nright 1 nan\n", "the vector of 'right' is not of 2 finite numbers"),
        ("up 1 1e99\n", "the vector of 'up' is not of 2 finite numbers"),
        ("up 1  2\n", "the vector of 'up' is not of 3 finite numbers"),
        (b"\xff 1 2\n", "not a file of word vectors: 'utf-8' codec can't decode"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    path = tmp_path / "odd.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        read(str(path))


def test_archives_and_places_that_hold_no_vectors_are_refused(tmp_path):
    with pytest.raises(UserError, match="must have one member, a text file of word vectors, not 2"):
        read(zipped(tmp_path / "two.zip", ("a", TEXT), ("b", TEXT)))
    torn = tmp_path / "torn.zip"
    torn.write_bytes(Path(zipped(tmp_path / "one.zip", ("a", TEXT * 99))).read_bytes()[:60])
    with pytest.raises(UserError, match=r"torn\.zip"):
        read(str(torn))
    with pytest.raises(UserError, match="none: No such file"):
        read(str(tmp_path / "none"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe: not a regular file"):
        read(str(tmp_path / "pipe"))


def test_nearest_is_by_cosine():
    vectors = WordVectors(("up", "right", "diagonal", "down", "nothing"), read_table(), "")
    found = nearest_words(vectors, np.float32([0, 5]), 3, ("up",))
    assert [word for word, _ in found] == ["diagonal", "right", "nothing"]
    np.testing.assert_allclose([cosine for _, cosine in found], [np.sqrt(0.5), 0, 0], atol=1e-6)
    assert nearest_words(vectors, np.float32([0, 5]), 99)[-1] == ("down", -1.0)


def read_table():
    return np.float32([[0, 2], [3, 0], [1, 1], [0, -1], [0, 0]])


def test_expressions():
    words = {"king": 0, "man": 1, "-": 2, "frog": 3}
    assert parse_expression("king - man + frog", words) == [(1.0, "king"), (-1.0, "man"), (1.0, "frog")]
    assert parse_expression("- king", words) == [(-1.0, "king")]
    assert parse_expression("-", words) == [(1.0, "-")], "a word of the file"
    for text, message in (("", "--word is empty"), ("King", "'King' has no vector; did you mean king?")):
        with pytest.raises(UserError, match=re.escape(message)):
            parse_expression(text, words)


@pytest.mark.parametrize(
    ("text", "sign"), [("king -", "-"), ("king + + man", "+"), ("king + - man", "+"), ("- -", "-")]
)
def test_a_sign_without_a_word_is_refused(text, sign):
    message = f"--word='{text}': no word follows a {sign}: write a sum such as 'king - man + woman'"
    with pytest.raises(UserError, match=re.escape(message)):
        parse_expression(text, {"king": 0, "man": 1, "-": 2, "+": 3})


def test_only_the_words_of_a_vocabulary_are_kept(file):
    kept = read_word_vectors(file, file, {"down", "right", "sideways"})
    assert kept.words == ("right", "down")
    np.testing.assert_array_equal(kept.table, np.float32([[3, 0], [0, -1]]))
    assert kept.sha256 == read(file).sha256


def test_the_projection_keeps_what_varies_most():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(50, 4)) * [0.01, 3, 0.02, 1]
    found = project(table)
    np.testing.assert_allclose(np.abs(np.corrcoef(found[:, 0], table[:, 1])[0, 1]), 1, atol=0.02)
    np.testing.assert_allclose(np.abs(np.corrcoef(found[:, 1], table[:, 3])[0, 1]), 1, atol=0.02)


def test_words_with_several_vectors_are_counted(tmp_path, capsys):
    """The same vector again is no question; nor is a word that nobody asked for."""
    (tmp_path / "v.txt").write_text("a 1 2\nb 3 4\na 5 6\nb 3 4\nc 1 1\nc 2 2\n")
    found = read_word_vectors(str(tmp_path / "v.txt"), "key=v", frozenset("ab"))
    assert found.table.tolist() == [[1, 2], [3, 4]]
    said = "1 word has several vectors, of which the first counts, such as 'a'"
    assert capsys.readouterr().err == f"warning: key=v: {said}\n"


def test_the_command_prints_and_draws(file, tmp_path, capsys):
    content = neighbours.run(None, tmp_path / "out", vectors=file, word="up + right - down", nearest=2)
    assert [each["word"] for each in content["neighbours"]] == ["diagonal", "up"]  # the sum is (1, 2), of unit vectors
    assert capsys.readouterr().out.startswith("0.9487  diagonal\n0.8944  up\n")
    assert json.loads((tmp_path / "out" / "neighbours.json").read_text()) == content
    assert (tmp_path / "out" / "neighbours.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="--nearest=0 must be at least 1"):
        neighbours.run(None, tmp_path / "out", vectors=file, word="up", nearest=0)


def test_glove_is_known_by_its_text(tmp_path):
    with pytest.raises(UserError, match=r"glove\.6B\.50d\.zip is not in a data directory: download"):
        load_glove(None)
    (tmp_path / "glove").mkdir()
    zipped(tmp_path / word_vectors.GLOVE, ("glove.6B.50d.txt", TEXT))
    with pytest.raises(UserError, match=r"its text has sha256 .*, not d8f717f8"):
        load_glove(str(tmp_path))


def test_gloves_neighbours_of_frog_and_its_analogy(tmp_path):
    """Stanford's page shows the first; the second is Mikolov's."""
    data_dir = os.environ.get("LM_DATA_DIR", "")
    if not os.path.isfile(os.path.join(data_dir, word_vectors.GLOVE)):
        pytest.skip(f"LM_DATA_DIR has no {word_vectors.GLOVE}")
    expected = {
        "frog": dict(snake=0.8445, ape=0.7938, toad=0.7908, monkey=0.7884, spider=0.7718, lizard=0.7686),
        "king - man + woman": dict(king=0.8854, queen=0.8524),
    }
    for word, cosines in expected.items():
        content = neighbours.run(None, tmp_path, data_dir=data_dir, word=word, nearest=len(cosines))
        assert {each["word"]: round(each["cosine"], 4) for each in content["neighbours"]} == cosines


def test_cosines_neither_overflow_nor_vanish_in_32_bits(tmp_path):
    """(1, 2) and (2, 1) have the cosine 0.8 at any length."""
    path = tmp_path / "a.txt"
    path.write_text("king 1e-30 2e-30\nman 2e-30 1e-30\nq 2e30 1e30\nnothing 0 0\n")
    vectors = read_word_vectors(str(path), str(path))
    found = dict(nearest_words(vectors, vectors.table[0].astype(np.float64), 4))
    assert found == pytest.approx({"king": 1.0, "man": 0.8, "q": 0.8, "nothing": 0.0})
    with pytest.raises(UserError, match="its vector is zero"):
        nearest_words(vectors, vectors.table[3], 1)
