"""Vocabulary, splits and errors of the user's own texts."""

import functools
import hashlib
import os
import shutil

import pytest

from lm.data import corpora
from lm.data.corpora import load
from lm.data.text import Vocabulary
from lm.errors import UserError
from tests.helpers.corpus_files import data_config, refusal


def load_textfile(tmp_path, content: bytes, splits=corpora.SPLITS, **changes):
    path = tmp_path / "mine.txt"
    path.write_bytes(content)
    return load(data_config(corpus="textfile", path=str(path), **changes), None, splits)


def test_textfile_characters(tmp_path):
    content = b"\xef\xbb\xbfab\r\nabab\nb"
    corpus = load_textfile(tmp_path, content, fractions=(0.5, 0.25, 0.25))
    assert corpus.vocabulary == Vocabulary("char", ("\n", "a", "b"))
    assert {n: corpus.vocabulary.decode(ids) for n, ids in corpus.splits.items()} == {
        "train": "ab\na",
        "valid": "ba",
        "test": "b\nb",
    }
    assert corpus.provenance["sources"][0]["sha256"] == hashlib.sha256(content).hexdigest()
    assert corpus.provenance["unknown_rate"] == {"train": 0.0, "valid": 0.0, "test": 0.0}


@pytest.mark.parametrize("splits", [corpora.SPLITS, ("train",)])
def test_textfile_symbols_outside_train_are_unknown_for_any_requested_splits(tmp_path, splits):
    corpus = load_textfile(tmp_path, "aabbaéac".encode(), splits, fractions=(0.5, 0.25, 0.25))
    assert corpus.vocabulary == Vocabulary("char", ("a", "b", "\ufffd"), "\ufffd")
    assert corpus.provenance["unknown_rate"] == {"train": 0.0, "valid": 0.5, "test": 0.5}
    assert tuple(corpus.splits) == splits
    assert corpus.provenance["tokens"] == {name: len(ids) for name, ids in corpus.splits.items()}


def test_textfile_words_with_a_limit(tmp_path):
    corpus = load_textfile(
        tmp_path,
        b"a a b b c\na d e a",
        level="word",
        fractions=(0.6, 0.0, 0.4),
        max_vocabulary=4,
    )
    assert corpus.vocabulary == Vocabulary("word", ("a", "b", "<eos>", "<unk>"), "<unk>")
    assert corpus.splits["train"].tolist() == [0, 0, 1, 1, 3, 2]
    assert corpus.splits["test"].tolist() == [0, 3, 3, 0]
    assert corpus.provenance["unknown_rate"] == {"train": 1 / 6, "test": 1 / 2}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"level": "word"}, "tokens that spell special symbols are read as these: '<eos>' 1"),  # no word is unknown
        ({"level": "word", "max_vocabulary": 4}, "'<unk>' 2, '<eos>' 1"),
        ({"level": "char", "max_vocabulary": 4}, "tokens that spell special symbols are read as these: '\ufffd' 1"),
        ({"level": "char"}, None),
        ({"level": "byte"}, None),
    ],
)
def test_special_symbols_that_a_textfile_spells_are_counted_once_a_run(tmp_path, capsys, changes, found):
    content = "a <unk> b <eos> <unk> c<eos> \ufffd\n".encode()
    load_textfile(tmp_path, content, ("test",), fractions=(1.0, 0.0, 0.0), **changes)
    assert capsys.readouterr().err == ""
    load_textfile(tmp_path, content, ("train", "valid"), fractions=(1.0, 0.0, 0.0), **changes)
    err = capsys.readouterr().err
    assert err == "" if found is None else (err.startswith("warning: config.data.path: ") and found in err)


def test_textfile_of_one_character(tmp_path):
    corpus = load_textfile(tmp_path, b"a", fractions=(1.0, 0.0, 0.0))
    assert corpus.splits["train"].tolist() == [0]
    with pytest.raises(UserError, match=r"config\.data\.fractions"):
        load_textfile(tmp_path, b"a")


@pytest.mark.parametrize(
    ("content", "changes", "message"),
    [
        (b"", {}, "mine.txt: the file has no text"),
        (b"ab\0c", {}, "mine.txt: byte 2 is NUL"),
        (b"abc\xff", {}, "mine.txt: byte 3 (0xff) is not UTF-8"),
        (b"abc", {"fractions": (0.5, 0.1, 0.1)}, "config.data.fractions=(0.5, 0.1, 0.1)"),
    ],
)
def test_wrong_textfiles_and_settings_are_errors(tmp_path, content, changes, message):
    with pytest.raises(UserError) as error:
        load_textfile(tmp_path, content, **changes)
    assert message in str(error.value)


def test_a_missing_textfile_is_an_error(tmp_path):
    data = functools.partial(data_config, corpus="textfile")
    assert refusal(load, data(), None).startswith("config.data.path is empty")
    assert "nowhere.txt: No such file" in refusal(load, data(path="/nowhere.txt"), None)
    assert "the directory has no file" in refusal(load, data(path=str(tmp_path)), None)


# ---- several files, and files for each split ----


def test_files_of_a_directory_or_a_pattern_are_read_in_sorted_order(tmp_path):
    texts = tmp_path / "texts"
    (texts / "b").mkdir(parents=True)
    for name, content in (("a.txt", "aa"), ("b/c.txt", "bb\n"), ("z.md", "cc"), (".hidden", "xx")):
        (texts / name).write_text(content)
    everything = data_config(corpus="textfile", path=str(texts), fractions=(1.0, 0.0, 0.0))
    corpus = load(everything, None)
    assert corpus.vocabulary.decode(corpus.splits["train"]) == "aa\nbb\ncc"
    assert [os.path.relpath(row["file"], texts) for row in corpus.provenance["sources"]] == ["a.txt", "b/c.txt", "z.md"]
    assert corpus.provenance["checksum"] == corpora.checksum(everything)
    pattern = load(data_config(corpus="textfile", path=f"{texts}/**/*.txt", fractions=(1.0, 0.0, 0.0)), None)
    assert pattern.vocabulary.decode(pattern.splits["train"]) == "aa\nbb\n"
    assert pattern.provenance["checksum"] != corpus.provenance["checksum"]
    assert "no such file" in refusal(load, data_config(corpus="textfile", path=f"{texts}/*.nothing"), None)


@pytest.mark.parametrize(("key", "copy_of"), [("valid_path", "train"), ("test_path", "train"), ("test_path", "valid")])
def test_a_text_of_two_splits_is_refused(tmp_path, key, copy_of):
    """A copy, too: its score would be of what the model was trained or selected on."""
    paths = {"path": str(tmp_path / "train"), "valid_path": str(tmp_path / "valid")}
    for name, content in (("train", "abab"), ("valid", "ba")):
        (tmp_path / name).write_text(content)
    shutil.copy(tmp_path / copy_of, tmp_path / "copy")
    message = refusal(load, data_config(corpus="textfile", **paths | {key: str(tmp_path / "copy")}), None)
    assert message == f"config.data.{key}: {tmp_path}/copy repeats a {copy_of} file, so its score misleads"


@pytest.mark.parametrize("content", [b"abab\n", b"\n abab", b"\xef\xbb\xbfabab\r\n"])
def test_a_copy_with_other_white_space_around_it_is_refused(tmp_path, content):
    (tmp_path / "train").write_bytes(b"abab")
    (tmp_path / "copy").write_bytes(content)
    paths = {"path": str(tmp_path / "train"), "valid_path": str(tmp_path / "copy")}
    assert "copy repeats a train file" in refusal(load, data_config(corpus="textfile", **paths), None)


def test_lines_that_are_training_lines_too_are_counted_once_a_run(tmp_path, capsys):
    """Only long ones, and if they are more than half."""
    lines = [f"line {number} of a text that is long enough\n" for number in range(40)]
    (tmp_path / "train").write_text("".join(lines[:20]) + "short\n" * 20)
    (tmp_path / "valid").write_text("  ".join(lines[8:23]) + "\n")  # 12 of 15
    (tmp_path / "test").write_text("".join(lines[10:30]) + "short\n" * 20)  # 10 of 20
    paths = {key: str(tmp_path / name) for key, name in (("path", "train"), ("valid_path", "valid"))}
    data = data_config(corpus="textfile", test_path=str(tmp_path / "test"), **paths)
    load(data, None, ("test",))
    assert capsys.readouterr().err == ""
    load(data, None, ("train", "valid"))
    said = "12 of 15 lines of valid (80%) are training lines too, so the score of valid may mislead"
    assert capsys.readouterr().err == f"warning: config.data.valid_path: {said}\n"
    load_textfile(tmp_path, "".join(lines[:9] * 2).encode(), ("train",), fractions=(0.5, 0.5, 0.0))
    said = "9 of 9 lines of valid (100%) are training lines too, so the score of valid may mislead"
    assert capsys.readouterr().err == f"warning: config.data.fractions: {said}\n"


def test_valid_and_test_have_files_of_their_own(tmp_path):
    for name, content in (("train", "abab"), ("valid", "ba"), ("test", "abc")):
        (tmp_path / name).write_text(content)
    paths = {"path": str(tmp_path / "train"), "valid_path": str(tmp_path / "valid")}
    corpus = load(data_config(corpus="textfile", **paths), None)
    assert {name: ids.tolist() for name, ids in corpus.splits.items()} == {"train": [0, 1, 0, 1], "valid": [1, 0]}
    both = data_config(corpus="textfile", **paths, test_path=str(tmp_path / "test"))
    corpus = load(both, None)
    assert corpus.vocabulary.symbols == ("a", "b", "\ufffd")  # of train alone
    assert corpus.splits["test"].tolist() == [0, 1, 2]
    before = corpora.checksum(both)
    (tmp_path / "test").write_text("abca")
    assert corpora.checksum(both) != before
    both.valid_path = str(tmp_path / "none")
    assert refusal(load, both, None) == f"config.data.valid_path={tmp_path}/none: No such file or directory"


def test_the_same_files_in_other_splits_are_another_corpus(tmp_path):
    """They had one checksum, and so one identity."""
    (tmp_path / "both").mkdir()
    for name, content in (("a", "abab" * 20), ("b", "ba" * 20)):
        (tmp_path / name).write_text(content)
        (tmp_path / "both" / name).write_text(content)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    made = [
        data_config(corpus="textfile", **paths)
        for paths in ({"path": str(tmp_path / "both")}, {"path": a, "valid_path": b}, {"path": a, "test_path": b})
    ]
    checksums = [corpora.checksum(data) for data in made]
    assert len(set(checksums)) == 3
    assert checksums == [load(data, None).provenance["checksum"] for data in made]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_what_might_never_end_is_refused(tmp_path, make):
    make(tmp_path / "endless")
    assert "not a regular file" in refusal(load, data_config(corpus="textfile", path=str(tmp_path / "endless")), None)


# ---- bytes and byte pairs ----


def test_bytes_of_any_file(tmp_path):
    content = b"\x00\xffab\xc3\xa4\r\n"
    corpus = load_textfile(tmp_path, content, level="byte", fractions=(1.0, 0.0, 0.0))
    assert bytes(corpus.splits["train"].tolist()) == content
    assert corpus.vocabulary.size == 256
    assert corpus.vocabulary.decode(corpus.splits["train"]) == "\x00\\xffab\u00e4\r\n"
    assert corpus.vocabulary.tokens("a\u00e4") == ["a", "\\xc3", "\\xa4"]
    assert corpus.provenance["bytes"] == {"train": 8}
    assert "the file is empty" in refusal(functools.partial(load_textfile, level="byte"), tmp_path, b"")
    limited = functools.partial(load_textfile, level="byte", max_vocabulary=10)
    assert "config.data.max_vocabulary must be 0 with config.data.level=byte" in refusal(limited, tmp_path, 50 * b"abc")


def test_byte_pairs_are_learnt_from_train_and_encode_any_text(tmp_path):
    text = "the cat sat on the mat \u00e4\n" * 50 + "zebra \u2603 zebra\n" * 5
    made = [
        load_textfile(tmp_path, text.encode(), level="bpe", max_vocabulary=270, fractions=(0.9, 0.05, 0.05))
        for _ in range(2)
    ]
    assert made[0].vocabulary == made[1].vocabulary
    vocabulary = made[0].vocabulary
    assert vocabulary.size == len(set(vocabulary.symbols)) == 270
    assert "zebra" not in "".join(vocabulary.symbols[256:])
    assert "".join(vocabulary.decode(made[0].splits[name]) for name in corpora.SPLITS) == text
    tokens = vocabulary.tokens("the mat \u2603")
    assert vocabulary.decode(vocabulary.encode("the mat \u2603")) == "the mat \u2603"
    assert len(tokens) < 12
    assert vocabulary.bytes_of("the mat", len(vocabulary.encode("the mat"))) == 7
    ids = vocabulary.encode("\u2603")
    assert vocabulary.decode(ids[:1]) == "\\xe2"  # never U+FFFD
    message = "config.data.max_vocabulary must be at least 257 for config.data.level=bpe, not 0"
    assert refusal(functools.partial(load_textfile, level="bpe"), tmp_path, b"abc" * 99) == message


def test_bytes_and_unknown_symbols_of_a_shortened_training_text(tmp_path):
    corpus = load_textfile(tmp_path, b"abcdefgh" * 9 + b"Z", train_tokens=5, fractions=(0.9, 0.1, 0.0))
    assert corpus.provenance["tokens"]["train"] == 5
    assert corpus.provenance["bytes"].keys() == {"valid"}
    assert corpus.provenance["unknown_rate"] == {"train": 0.0, "valid": 1 / 8}


def test_a_path_that_the_corpus_does_not_read_is_refused():
    message = refusal(load, data_config(corpus="text8", path="mine.txt"), None)
    assert (
        message
        == "config.data.path=mine.txt is read only with config.data.corpus=textfile or labelled or pairs, not text8"
    )
