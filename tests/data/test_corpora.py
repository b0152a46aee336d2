"""Vocabulary, splits and provenance of corpora: small ones written by the tests, and the real ones."""

import json
import math
import os

import numpy as np
import pytest

from lm.data import synthetic
from lm.data.corpora import CORPORA, load
from lm.data.files import RegisteredFile
from lm.data.labelled_corpora import LABELLED
from lm.data.pair_corpora import PAIRS
from lm.data.rows import CS224D
from lm.data.state_tracking import STATE_TRACKING
from lm.data.text import TEXT8_ALPHABET, Vocabulary
from tests.helpers.corpus_files import TEXT, archive, data_config, place, place_text8, refusal, register

pytestmark = pytest.mark.usefixtures("cache")


def test_the_validation_text_of_text8_comes_first(data_dir, monkeypatch):
    source = place_text8(data_dir, monkeypatch)
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


def test_a_cached_file_is_not_needed_again(cache, data_dir, monkeypatch):
    place_text8(data_dir, monkeypatch)
    data = data_config(corpus="text8", valid_chars=10)
    first = load(data, str(data_dir))
    (data_dir / "text8/text8.zip").unlink()
    second = load(data, None)
    np.testing.assert_array_equal(first.splits["train"], second.splits["train"])
    [folder] = cache.iterdir()  # neither archives nor unfinished data
    assert [path.name for path in folder.iterdir()] == ["1.0.0"]


@pytest.mark.parametrize("characters", [44, 45])
def test_valid_chars_out_of_range(characters, data_dir, monkeypatch):
    place_text8(data_dir, monkeypatch)
    data = data_config(corpus="text8", valid_chars=characters)
    assert "config.data.valid_chars" in refusal(load, data, str(data_dir))


def test_zero_valid_chars_give_no_validation_split(data_dir, monkeypatch):
    place_text8(data_dir, monkeypatch)
    corpus = load(data_config(corpus="text8", valid_chars=0), str(data_dir))
    assert list(corpus.splits) == ["train"]


def test_text8_in_its_published_parts(data_dir, monkeypatch):
    file = place(data_dir, "text8/text8.zip", archive({"text8": b"abcdefghij" * 10}), member="text8")
    register(monkeypatch, "text8_90_5_5", text=file)
    corpus = load(data_config(corpus="text8_90_5_5"), str(data_dir))
    assert {name: corpus.vocabulary.decode(ids) for name, ids in corpus.splits.items()} == {
        "train": "abcdefghij" * 9,
        "valid": "abcde",
        "test": "fghij",
    }
    assert corpus.vocabulary.symbols == tuple(TEXT8_ALPHABET)


def test_enwik8_is_read_as_bytes_even_if_a_character_is_cut(data_dir, monkeypatch):
    content = "é<p>".encode() * 20  # 100 bytes: the cut at 95 falls into an é
    broken = content[:98] + b"\xc3"
    register(monkeypatch, "enwik8", text=place(data_dir, "e.zip", archive({"enwik8": broken}), member="enwik8"))
    corpus = load(data_config(corpus="enwik8"), str(data_dir))
    assert b"".join(corpus.splits[name].tobytes() for name in ("train", "valid", "test")) == broken
    assert [len(corpus.splits[name]) for name in ("train", "valid", "test")] == [89, 5, 5]
    assert (corpus.vocabulary.level, corpus.vocabulary.size) == ("byte", 256)


@pytest.mark.parametrize("name", ["wikitext2", "wikitext103"])
def test_wikitext_is_three_members_of_one_archive(name, data_dir, monkeypatch):
    members = {file.member: f" \n = {split} = \n" for split, file in CORPORA[name].files.items()}
    file = place(data_dir, "wikitext/w.zip", archive(members))
    files = {split: file._replace(member=row.member) for split, row in CORPORA[name].files.items()}
    register(monkeypatch, name, **files)
    corpus = load(data_config(corpus=name), str(data_dir), ("train",))
    assert corpus.vocabulary == Vocabulary("word", ("<eos>", "=", "train"))
    assert corpus.splits["train"].tolist() == [0, 1, 2, 1, 0]  # the empty line, too, ends with <eos>
    assert {row.member for row in files.values()} == {
        f"{name[:8]}-{name[8:]}/wiki.{split}.tokens" for split in ("train", "valid", "test")
    }
    assert "not in the vocabulary: 'valid' (first at word 2)" in refusal(load, data_config(corpus=name), str(data_dir))


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


def test_ptb_by_characters_drops_the_spaces_around_lines(data_dir, monkeypatch):
    texts = {"train": " no <unk> \n n't a \n", "valid": " a n \n"}
    files = {n: place(data_dir, f"ptb/ptb.{n}.txt", t.encode()) for n, t in texts.items()}
    register(monkeypatch, "ptb_characters", **files)
    corpus = load(data_config(corpus="ptb_characters"), str(data_dir), ("train", "valid"))
    assert corpus.vocabulary == Vocabulary("char", tuple("\n '<>aknotu"))
    assert corpus.vocabulary.decode(corpus.splits["train"]) == "no <unk>\nn't a\n"
    assert corpus.vocabulary.decode(corpus.splits["valid"]) == "a n\n"
    assert corpus.provenance["words"] == {"train": 6, "valid": 3}  # with the end of each sentence


def test_words_of_a_shortened_training_text_are_not_counted(data_dir, monkeypatch):
    files = {n: place(data_dir, f"ptb/ptb.{n}.txt", b" a b \n" * 9) for n in ("train", "valid", "test")}
    register(monkeypatch, "ptb_characters", **files)
    corpus = load(data_config(corpus="ptb_characters", train_tokens=5), str(data_dir))
    assert corpus.provenance["tokens"]["train"] == 5
    assert corpus.provenance["words"] == {"valid": 27, "test": 27}


@pytest.mark.parametrize(("key", "value"), [("tokenizer", "lower"), ("min_count", 5), ("words", "all_splits")])
@pytest.mark.parametrize("corpus", ["textfile", "ptb", "synthetic"])
def test_keys_of_labelled_text_are_refused_for_texts(corpus, key, value):
    message = refusal(load, data_config(corpus=corpus, path="x" if corpus == "textfile" else "", **{key: value}), None)
    assert message == (
        f"config.data.{key}={value} is read only for labelled text and pairs, not with config.data.corpus={corpus}"
    )


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
    message = refusal(load, data_config(corpus="klingon"), None)
    assert message.startswith("config.data.corpus: unknown 'klingon'; known: ")
    assert all(name in message for name in CORPORA)


def test_the_table_of_corpora_and_registered_files():
    assert list(CORPORA) == [
        "text8",
        "text8_prefix",
        "text8_90_5_5",
        "enwik8",
        "wikitext2",
        "wikitext103",
        "ptb",
        "ptb_characters",
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
    assert len({file.sha256 for file in registered}) == len(registered) == 33
    unpublished = {file.path.partition("/")[0] for file in registered if file.url is None}
    assert unpublished == {"text8", "imdb", "dbpedia", "atis", "conll2003", "multi30k"}


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


def test_real_ptb_by_characters(real):
    corpus = real("ptb_characters")
    assert corpus.provenance["tokens"] == {"train": 5_017_482, "valid": 393_042, "test": 442_423}
    assert corpus.provenance["words"] == {"train": 929_589, "valid": 73_760, "test": 82_430}
    assert corpus.vocabulary.size == 50


def test_real_shakespeare_book(real):
    corpus = real("shakespeare_book")
    assert {name: len(ids) for name, ids in corpus.splits.items()} == {"train": 99_993}
    assert corpus.vocabulary.size == 62


def test_real_tiny_shakespeare(real):
    corpus = real("tiny_shakespeare")
    assert corpus.provenance["tokens"] == {"train": 1_003_854, "valid": 55_770, "test": 55_770}
    assert corpus.vocabulary.size == 65
    assert corpus.vocabulary.decode(corpus.splits["train"][:14]) == "First Citizen:"
