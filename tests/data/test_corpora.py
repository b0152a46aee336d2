"""Vocabulary, splits and provenance of corpora: small ones written by the tests, and the real ones."""

import functools
import hashlib
import json
import math
import os
import shutil

import numpy as np
import pytest

from lm.data import corpora, synthetic
from lm.data.corpora import CORPORA, load
from lm.data.files import RegisteredFile
from lm.data.labelled_corpora import LABELLED
from lm.data.pair_corpora import PAIRS
from lm.data.rows import CS224D
from lm.data.state_tracking import STATE_TRACKING
from lm.data.text import TEXT8_ALPHABET, Vocabulary
from lm.errors import UserError
from tests.helpers.corpus_files import TEXT, data_config, place, place_text8, refusal, register

pytestmark = pytest.mark.usefixtures("cache")


def test_the_validation_text_of_text8_comes_first(data_dir, tmp_path, monkeypatch):
    source = place_text8(data_dir, tmp_path, monkeypatch)
    corpus = load(data_config(corpus="text8", valid_chars=10), str(data_dir))
    assert corpus.name == "text8"
    assert corpus.vocabulary.decode(corpus.splits["valid"]) == TEXT[:10]
    assert corpus.vocabulary.decode(corpus.splits["train"]) == TEXT[10:]
    assert corpus.splits["train"].dtype == np.uint8
    assert corpus.splits["valid"][:4].tolist() == [20, 8, 5, 0]
    assert corpus.provenance["tokens"] == {"train": 34, "valid": 10}
    assert corpus.provenance["sources"][0]["sha256"] == source.sha256
    assert "CC BY-SA" in corpus.provenance["licence"]
    assert json.loads(json.dumps(corpus.provenance)) == corpus.provenance


def test_a_cached_file_is_not_needed_again(cache, data_dir, tmp_path, monkeypatch):
    place_text8(data_dir, tmp_path, monkeypatch)
    data = data_config(corpus="text8", valid_chars=10)
    first = load(data, str(data_dir))
    (data_dir / "text8/text8.zip").unlink()
    second = load(data, None)
    np.testing.assert_array_equal(first.splits["train"], second.splits["train"])
    [folder] = cache.iterdir()  # neither archives nor unfinished data
    assert [path.name for path in folder.iterdir()] == ["1.0.0"]


@pytest.mark.parametrize("characters", [44, 45])
def test_valid_chars_out_of_range(characters, data_dir, tmp_path, monkeypatch):
    place_text8(data_dir, tmp_path, monkeypatch)
    data = data_config(corpus="text8", valid_chars=characters)
    assert "config.data.valid_chars" in refusal(load, data, str(data_dir))


def test_zero_valid_chars_give_no_validation_split(data_dir, tmp_path, monkeypatch):
    place_text8(data_dir, tmp_path, monkeypatch)
    corpus = load(data_config(corpus="text8", valid_chars=0), str(data_dir))
    assert list(corpus.splits) == ["train"]


def test_ptb_takes_its_vocabulary_from_train_and_reads_only_requested_files(data_dir, monkeypatch):
    texts = {"train": " b a <unk> \n a b c \n", "valid": " c a \n"}
    registered = {n: place(data_dir, f"ptb/ptb.{n}.txt", t.encode()) for n, t in texts.items()}
    registered["test"] = RegisteredFile("ptb/ptb.test.txt", 5, "0" * 64, "http://not.there/ptb.test.txt")
    register(monkeypatch, "ptb", **registered)
    corpus = load(data_config(corpus="ptb"), str(data_dir), ("train", "valid"))
    assert corpus.vocabulary == Vocabulary("word", ("<eos>", "a", "b", "<unk>", "c"))
    assert corpus.splits["train"].tolist() == [2, 1, 3, 0, 1, 2, 4, 0]
    assert corpus.splits["valid"].tolist() == [4, 1, 0]
    assert "ptb/ptb.test.txt" in refusal(load, data_config(corpus="ptb"), str(data_dir))
    alone = load(data_config(corpus="ptb"), str(data_dir), ("valid",))
    assert list(alone.splits) == ["valid"]
    assert alone.splits["valid"].tolist() == [4, 1, 0]


def test_shakespeare_book_is_all_training_text(data_dir, monkeypatch):
    register(monkeypatch, "shakespeare_book", text=place(data_dir, "s/book.txt", b"ba\nAb"))
    corpus = load(data_config(corpus="shakespeare_book"), str(data_dir))
    assert corpus.vocabulary.symbols == ("\n", "A", "a", "b")
    assert {name: ids.tolist() for name, ids in corpus.splits.items()} == {"train": [3, 2, 0, 1, 3]}


def test_tiny_shakespeare_is_divided_in_file_order(data_dir, monkeypatch):
    text = "abcdefghij" * 10
    register(monkeypatch, "tiny_shakespeare", text=place(data_dir, "s/tiny.txt", text.encode()))
    corpus = load(data_config(corpus="tiny_shakespeare"), str(data_dir), ("train", "test"))
    assert {name: len(ids) for name, ids in corpus.splits.items()} == {"train": 90, "test": 5}
    assert corpus.vocabulary.decode(corpus.splits["test"]) == "fghij"


def test_synthetic_records_its_floor():
    corpus = load(data_config(corpus="synthetic", size=5000, seed=3), None)
    assert {name: len(ids) for name, ids in corpus.splits.items()} == {
        "train": 5000,
        "valid": 1000,
        "test": 1000,
    }
    texts, chain = synthetic.generate_splits(5000, 3)
    assert corpus.vocabulary.decode(corpus.splits["valid"]) == texts["valid"]
    assert corpus.provenance["floor_nats"] == chain.floor_nats
    assert corpus.provenance["floor_perplexity"] == math.exp(chain.floor_nats)
    assert corpus.vocabulary.symbols == tuple(TEXT8_ALPHABET)


def test_an_unknown_corpus_is_an_error_that_lists_the_known_ones():
    message = refusal(load, data_config(corpus="text9"), None)
    assert message.startswith("config.data.corpus: unknown 'text9'; known: ")
    assert all(name in message for name in CORPORA)


def test_the_table_of_corpora_and_registered_files():
    assert list(CORPORA) == [
        "text8",
        "text8_prefix",
        "ptb",
        "shakespeare_book",
        "tiny_shakespeare",
        "textfile",
        "labelled",
        "pairs",
        *LABELLED,
        *CS224D,
        *PAIRS,
        *STATE_TRACKING,
        "synthetic",
    ]
    # conll2003_ner and conll2003_pos read the same files.
    registered = list({file.path: file for row in CORPORA.values() for file in row.files.values()}.values())
    assert all(len(file.sha256) == 64 and file.size > 0 for file in registered)
    assert len({file.sha256 for file in registered}) == len(registered) == 30
    unpublished = {file.path.partition("/")[0] for file in registered if file.url is None}
    assert unpublished == {"text8", "imdb", "dbpedia", "atis", "conll2003", "multi30k"}


# ---- the user's own text ----


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
    assert message == f"config.data.{key}: {tmp_path}/copy is {copy_of} text too, so its score would mislead"


@pytest.mark.parametrize("content", [b"abab\n", b"\n abab", b"\xef\xbb\xbfabab\r\n"])
def test_a_copy_with_other_white_space_around_it_is_refused(tmp_path, content):
    (tmp_path / "train").write_bytes(b"abab")
    (tmp_path / "copy").write_bytes(content)
    paths = {"path": str(tmp_path / "train"), "valid_path": str(tmp_path / "copy")}
    assert "copy is train text too" in refusal(load, data_config(corpus="textfile", **paths), None)


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


@pytest.mark.parametrize(
    ("vocabulary", "text", "count", "size"),
    [
        (Vocabulary("char", tuple("ab\u00e4")), "\u00e4b", 1, 2),
        (Vocabulary("word", ("a", "<eos>")), "  a b\nc", 3, 6),
        (Vocabulary("word", ("a", "<eos>")), "", 1, 0),
    ],
)
def test_bytes_of_the_first_tokens(vocabulary, text, count, size):
    assert vocabulary.bytes_of(text, count) == size


# ---- the real files ----


@pytest.fixture
def real(cache, monkeypatch):
    """Loads real corpora; skips the test if LM_DATA_DIR lacks them."""
    directory = os.environ.get("LM_DATA_DIR")

    def loaded(name, **changes):
        registered = CORPORA[name].files.values()
        lacking = [file.path for file in registered if not os.path.isfile(os.path.join(directory or "", file.path))]
        if not directory or lacking:
            pytest.skip(f"LM_DATA_DIR={directory or ''} holds no {lacking[0]}")
        return load(data_config(corpus=name, **changes), directory)

    return loaded


def test_real_text8_prefix(real):
    corpus = real("text8_prefix")
    assert {n: len(ids) for n, ids in corpus.splits.items()} == {"train": 6_876_825, "valid": 1000}
    assert corpus.vocabulary.decode(corpus.splits["valid"][:31]) == " anarchism originated as a term"
    assert corpus.provenance["corpus"] == "text8_prefix"


def test_real_text8(real):
    corpus = real("text8")
    assert {n: len(ids) for n, ids in corpus.splits.items()} == {"train": 99_999_000, "valid": 1000}


def test_real_ptb(real):
    corpus = real("ptb")
    assert corpus.vocabulary.size == 10_000
    assert corpus.vocabulary.symbols[:6] == ("the", "<unk>", "<eos>", "N", "of", "to")
    assert corpus.provenance["tokens"] == {"train": 929_589, "valid": 73_760, "test": 82_430}
    assert corpus.splits["train"].dtype == np.uint16
    assert corpus.vocabulary.decode(corpus.splits["test"][:5]) == "no it was n't black"


def test_real_shakespeare_book(real):
    corpus = real("shakespeare_book")
    assert {name: len(ids) for name, ids in corpus.splits.items()} == {"train": 99_993}
    assert corpus.vocabulary.size == 62


def test_real_tiny_shakespeare(real):
    corpus = real("tiny_shakespeare")
    assert corpus.provenance["tokens"] == {"train": 1_003_854, "valid": 55_770, "test": 55_770}
    assert corpus.vocabulary.size == 65
    assert corpus.vocabulary.decode(corpus.splits["train"][:14]) == "First Citizen:"


def test_a_path_that_the_corpus_does_not_read_is_refused():
    message = refusal(load, data_config(corpus="text8", path="mine.txt"), None)
    assert (
        message
        == "config.data.path=mine.txt is read only with config.data.corpus=textfile or labelled or pairs, not text8"
    )
