"""Labelled files of every form, and what is wrong with them, by line."""

import pytest

from lm.data.corpora import load
from lm.errors import UserError
from tests.helpers import labelled


def load_file(path, **changes):
    return load(labelled.config(path, **changes).data, None)


def texts(corpus, split="train"):
    """[(words, label)] of a split with one label per sequence."""
    examples, vocabulary = corpus.splits[split], corpus.vocabulary
    parts = [examples.tokens[a:b] for a, b in zip(examples.starts[:-1], examples.starts[1:], strict=True)]
    words = [" ".join(vocabulary.symbols[i] for i in part) for part in parts]
    return list(zip(words, (vocabulary.labels[i] for i in examples.labels), strict=True))


def test_three_files_of_odd_shape_train_by_config_keys_alone(tmp_path):
    tsv, csv, folders = tmp_path / "a.tsv", tmp_path / "b.csv", tmp_path / "texts"
    tsv.write_bytes(b"\xef\xbb\xbfid\tlabel\ttext\r\n1\tspam\tBuy now\r\n2\tham\tSee you\r\n")
    found = load_file(tsv, data__columns=(-1, 1), data__header="first_line", data__valid_share=0.0)
    assert texts(found) == [("Buy now", "spam"), ("See you", "ham")]
    csv.write_text('good,"It was ""fun"", really\nvery"\nbad,"Oh, no"\n')
    found = load_file(csv, data__format="csv", data__columns=(1, 0), data__tokenizer="keras", data__valid_share=0.0)
    assert texts(found) == [("it was fun really very", "good"), ("oh no", "bad")]
    for name, text in (("x/1.txt", "one\ntwo"), ("y/1.txt", "three")):
        (folders / name).parent.mkdir(parents=True)
        (folders / name).write_text(text)
    assert texts(load_file(folders, data__format="folders", data__valid_share=0.0)) == [
        ("one two", "x"),
        ("three", "y"),
    ]


def test_columns_are_sentences_with_a_label_per_token(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\n\n\nPeter NNP B-PER\n")
    corpus = load_file(path, task="tagging", data__valid_share=0.0)
    examples, vocabulary = corpus.splits["train"], corpus.vocabulary
    assert examples.starts.tolist() == [0, 2, 3]
    assert [vocabulary.labels[i] for i in examples.labels] == ["B-ORG", "O", "B-PER"]
    assert corpus.provenance["examples"] == {"train": 2}


def test_words_that_training_lacks_are_unknown(tmp_path):
    train, valid = tmp_path / "a.tsv", tmp_path / "b.tsv"
    train.write_text("a b\tx\na c\ty\n")
    valid.write_text("a z\tx\nq\ty\n")
    assert texts(load_file(train, data__valid_path=str(valid)), "valid") == [("a <unk>", "x"), ("<unk>", "y")]


def test_rare_words_and_digits(tmp_path):
    """Words are counted with their digits replaced."""
    train, valid = tmp_path / "a.tsv", tmp_path / "b.tsv"
    train.write_text("at 747 b747\tx\nat 320 b747 then\ty\n")
    valid.write_text("at 11 111 then\tx\nat\ty\n")
    changes = {"data__digits": "DIGIT", "data__min_count": 2, "data__valid_path": str(valid)}
    found = load_file(train, **changes)
    assert texts(found) == [("at DIGITDIGITDIGIT b747", "x"), ("at DIGITDIGITDIGIT b747 <unk>", "y")]
    assert texts(found, "valid") == [("at <unk> DIGITDIGITDIGIT <unk>", "x"), ("at", "y")]
    assert found.vocabulary.symbols == ("<unk>", "DIGITDIGITDIGIT", "at", "b747")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\tx\nb\n", "line 2: it has 1 columns, and the rows before it have 2"),
        ("a\tx\nb\ty\tx\n", "line 2: it has 3 columns, and the rows before it have 2"),
        ("a\tx\n \ty\n", "line 2: the text is empty"),
        ("a\tx\nb\t\n", "line 2: the label is empty"),
        ("a\tx\nb\tx\n", "all 2 training examples have the label 'x'"),
        ("a\tx\n\nb\ty\n", "line 2: it has 1 columns"),
        ("a\tx\nb\0\ty\n", "NUL"),
        ("", "no text"),
    ],
)
def test_bad_rows_are_refused_by_line(tmp_path, content, message):
    path = tmp_path / "a.tsv"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        load_file(path, data__valid_share=0.0)


def test_labels_that_do_not_fit_between_splits_are_refused(tmp_path):
    train, valid = tmp_path / "a.tsv", tmp_path / "b.tsv"
    train.write_text("a b\tx\na c\ty\n")
    valid.write_text("a\tz\n")
    with pytest.raises(UserError, match=r"b.tsv, line 1: the label 'z' is not one .*; known: x, y"):
        load_file(train, data__valid_path=str(valid))
    valid.write_text("a\tx\n")
    with pytest.raises(UserError, match="no example of valid has the label 'y'"):
        load_file(train, data__valid_path=str(valid))


def test_folders_of_several_directories_are_not_classes(tmp_path):
    for name in ("train/pos/a", "train/neg/b", "test/pos/c"):
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a text")
    with pytest.raises(UserError, match="a directory of one folder per class"):
        load_file(tmp_path / "texts", data__format="folders", data__valid_share=0.0)
