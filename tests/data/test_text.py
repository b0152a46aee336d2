"""Tokenisers, vocabularies and the division of texts, against values worked out by hand."""

import collections

import numpy as np
import pytest

from lm.data import text as text_lib
from lm.data.text import (
    TEXT8_VOCABULARY,
    Vocabulary,
    character_vocabulary,
    divide,
    next_word_boundary,
    plain_text,
    word_vocabulary,
    words,
)
from lm.errors import UserError


@pytest.fixture
def small_pieces(monkeypatch):
    """Processes texts three characters at a time, so that pieces end everywhere."""
    monkeypatch.setattr(text_lib, "_PIECE", 3)


def test_words_split_on_white_space_and_every_newline_is_eos():
    assert words("a  b\tc\n\nd \n") == ["a", "b", "c", "<eos>", "<eos>", "d", "<eos>"]
    assert words("") == []


def test_text8_ids():
    vocabulary = TEXT8_VOCABULARY
    assert vocabulary.size == 27
    assert vocabulary.encode(" abz").tolist() == [0, 1, 2, 26]
    assert vocabulary.decode(np.array([20, 8, 5, 0, 0], np.uint8)) == "the  "


@pytest.mark.usefixtures("small_pieces")
def test_characters_are_in_code_point_order():
    vocabulary = character_vocabulary("b\na😀ab")
    assert vocabulary == Vocabulary("char", ("\n", "a", "b", "😀"))
    assert vocabulary.encode("😀ba\nab").tolist() == [3, 2, 1, 0, 1, 2]


@pytest.mark.usefixtures("small_pieces")
def test_words_are_by_count_then_alphabet():
    text = "b a c\na b d a\n"
    assert word_vocabulary(text) == Vocabulary("word", ("a", "<eos>", "b", "c", "d"))
    assert word_vocabulary(text).encode(text).tolist() == [2, 0, 3, 1, 0, 2, 4, 0, 1]
    assert word_vocabulary(text).decode(np.array([2, 1])) == "b <eos>"


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("text", ["x", "\n", "one  two\nthree one \n", " lead", "trail ", "a\u2028b\x85c"])
def test_words_do_not_depend_on_the_pieces(text):
    vocabulary = word_vocabulary(text)
    assert dict.fromkeys(vocabulary.symbols) == dict.fromkeys(
        word for word, _ in sorted(collections.Counter(words(text)).items(), key=lambda item: (-item[1], item[0]))
    )
    assert [vocabulary.symbols[i] for i in vocabulary.encode(text)] == words(text)


@pytest.mark.parametrize("level", ["char", "word"])
def test_the_empty_text_has_no_ids(level):
    ids = Vocabulary(level, ("a", "b")).encode("")
    assert ids.shape == (0,)
    assert ids.dtype == np.uint8


@pytest.mark.parametrize(
    ("size", "dtype"), [(1, "uint8"), (256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "uint32")]
)
def test_ids_have_the_smallest_type_that_holds_them(size, dtype):
    vocabulary = Vocabulary("word", tuple(map(str, range(size))))
    ids = vocabulary.encode(f"0 {size - 1}")
    assert ids.dtype == vocabulary.dtype == dtype
    assert ids.tolist() == [0, size - 1]


def test_an_unknown_character_is_an_error_with_256_known_ones():
    symbols = tuple(chr(code) for code in range(256))
    ids = Vocabulary("char", symbols).encode("ÿ\0")
    assert ids.tolist() == [255, 0]
    with pytest.raises(UserError, match="'Ā'"):
        Vocabulary("char", symbols).encode("ÿĀ")


@pytest.mark.usefixtures("small_pieces")
def test_an_error_names_unknown_characters_and_their_position():
    with pytest.raises(UserError) as error:
        TEXT8_VOCABULARY.encode("abcdEéE")
    assert "characters that are not in the vocabulary: 'E', 'é' (first at character 4)" in str(error.value)


@pytest.mark.usefixtures("small_pieces")
def test_an_error_names_unknown_words_and_their_position():
    with pytest.raises(UserError) as error:
        Vocabulary("word", ("a",)).encode("a a b")
    assert "words that are not in the vocabulary: 'b' (first at word 2)" in str(error.value)


def test_an_error_names_at_most_five_unknown_symbols():
    with pytest.raises(UserError, match=r"'1', '2', '3', '4', '5' and 2 more \(first at word 0\)"):
        Vocabulary("word", ("a",)).encode("1 2 3 4 5 6 7 1")


def test_the_unknown_symbol_replaces_all_others():
    assert Vocabulary("char", ("a", "\ufffd"), "\ufffd").encode("aé\ufffd").tolist() == [0, 1, 1]
    assert Vocabulary("word", ("<unk>", "a"), "<unk>").encode("a b <unk>").tolist() == [1, 0, 0]


def test_a_limit_keeps_the_most_frequent_and_adds_unknown():
    assert word_vocabulary("c a d b a b a", limit=3) == Vocabulary("word", ("a", "b", "<unk>"), "<unk>")
    assert word_vocabulary("c a b a b a", limit=3).unknown is None
    assert word_vocabulary("<unk> <unk> a b c", limit=3).symbols == ("a", "b", "<unk>")
    assert character_vocabulary("zzzyyxa", limit=3) == Vocabulary("char", ("y", "z", "\ufffd"), "\ufffd")
    assert character_vocabulary("ab", limit=2).unknown is None
    # The unknown symbol counts.
    assert word_vocabulary("a a b", limit=2, unknown=True).symbols == ("a", "<unk>")
    assert word_vocabulary("<unk> a b", limit=3, unknown=True).symbols == ("<unk>", "a", "b")
    assert character_vocabulary("aab", limit=2, unknown=True).symbols == ("a", "\ufffd")


def test_unknown_is_not_added_twice():
    assert word_vocabulary("<unk> a a", unknown=True).symbols == ("a", "<unk>")
    assert character_vocabulary("\ufffda", unknown=True).symbols == ("a", "\ufffd")


def test_word_boundaries_follow_white_space():
    text = "ab cd\nef"
    assert [next_word_boundary(text, i) for i in range(10)] == [0, 3, 3, 3, 6, 6, 6, 8, 8, 8]


def test_plain_text_has_one_kind_of_line_end_and_no_byte_order_mark():
    assert plain_text(b"\xef\xbb\xbfa\r\nb\rc\n\r\n", "F") == "a\nb\nc\n\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "F: the file has no text"),
        (b" \r\n", "F: the file has no text"),
        (b"\xef\xbb\xbf", "F: the file has no text"),
        ("aé".encode() + b"\0b", "F: byte 3 is NUL: this is not a text file"),
        (b"ab\xe9c", "F: byte 2 (0xe9) is not UTF-8: convert the file to UTF-8"),
        (b"\xff\xfea\0", "F: byte 0 (0xff) is not UTF-8: convert the file to UTF-8"),
        (b"abc\xc3", "F: byte 3 (0xc3) is not UTF-8: convert the file to UTF-8"),
    ],
)
def test_files_that_are_no_text_are_errors(content, message):
    with pytest.raises(UserError) as error:
        plain_text(content, "F")
    assert str(error.value) == message


def test_characters_are_divided_in_file_order():
    text = "".join(map(chr, range(200)))
    parts = divide(text, (0.9, 0.05, 0.05), "char")
    assert [len(parts[name]) for name in ("train", "valid", "test")] == [180, 10, 10]
    assert parts["train"] + parts["valid"] + parts["test"] == text


def test_words_are_not_cut():
    assert divide("aaa bbb ccc ddd", (0.5, 0.25, 0.25), "word") == {
        "train": "aaa bbb ",
        "valid": "ccc ",
        "test": "ddd",
    }


@pytest.mark.parametrize(
    ("fractions", "sizes"),
    [
        ((1.0, 0.0, 0.0), {"train": 10}),
        ((0.9999999, 0.0, 0.0), {"train": 10}),
        ((0.7, 0.3, 0.0), {"train": 7, "valid": 3}),
        ((0.7, 0.0, 0.3), {"train": 7, "test": 3}),
    ],
)
def test_a_fraction_of_zero_leaves_its_part_out(fractions, sizes):
    parts = divide("abcdefghij", fractions, "char")
    assert {name: len(part) for name, part in parts.items()} == sizes


@pytest.mark.parametrize(
    "fractions",
    [(0.9, 0.1), (0.5, 0.2, 0.2), (1.1, -0.1, 0.0), (0.0, 0.5, 0.5), (float("nan"), 0.5, 0.5)],
)
def test_wrong_fractions_are_errors(fractions):
    with pytest.raises(UserError, match=r"config\.data\.fractions"):
        divide("abcdefghij", fractions, "char")


@pytest.mark.parametrize(("text", "level"), [("a", "char"), ("one", "word"), ("one ", "word")])
def test_a_text_too_short_to_divide(text, level):
    with pytest.raises(UserError, match=r"config\.data\.fractions=.* would be empty"):
        divide(text, (0.8, 0.1, 0.1), level)


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
