"""Labelled files of every form, and what is wrong with them, by line."""

import numpy as np
import pytest

from lm.data import labelled as labelled_text
from lm.data.corpora import CORPORA, load
from lm.errors import UserError
from tests.helpers import labelled
from tests.helpers.corpus_files import data_config, place, register


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


@pytest.mark.parametrize(("first", "warned"), [("text\tlabel", True), ("one\tx", False)])
def test_a_first_line_with_a_label_of_its_own_may_be_a_header(tmp_path, capsys, first, warned):
    path = tmp_path / "a.tsv"
    path.write_text(f"{first}\nin\tx\nout\ty\nup\tx\ndown\ty\n")
    load_file(path, data__valid_share=0.0)
    hint = "line 1 alone has the label 'label': if it is a header, set config.data.header=first_line"
    assert (hint in capsys.readouterr().err) == warned


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
        ("a\tx\n\nb\ty\n", "line 2: the line is blank: remove it"),
        ("a\tx\nb\ty\n \n", "line 3: the line is blank: remove it"),
        ("\na\tx\n", "line 1: the line is blank: remove it"),
        ("a\tx\nb\0\ty\n", "NUL"),
        ("", "no text"),
    ],
)
def test_bad_rows_are_refused_by_line(tmp_path, content, message):
    path = tmp_path / "a.tsv"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        load_file(path, data__valid_share=0.0)


def test_blank_lines_at_the_end_are_no_rows(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("a\tx\nb\ty\n\n\n")
    assert texts(load_file(path, data__valid_share=0.0)) == [("a", "x"), ("b", "y")]


@pytest.mark.parametrize(
    ("changes", "columns"),
    [({}, (0, 0)), ({}, (1, -1)), ({"task": "tagging"}, (0, -2)), ({"data__format": "csv"}, (-2, 0))],
)
def test_one_column_is_not_both_text_and_label(tmp_path, changes, columns):
    path = tmp_path / "a"
    path.write_text("a,x\n" if "data__format" in changes else "a\tx\n")
    with pytest.raises(UserError, match=rf"line 1: .*columns=\({columns[0]}, {columns[1]}\) names one column twice"):
        load_file(path, **changes, data__columns=columns)


def test_labels_that_do_not_fit_between_splits_are_refused(tmp_path):
    train, valid = tmp_path / "a.tsv", tmp_path / "b.tsv"
    train.write_text("a b\tx\na c\ty\n")
    valid.write_text("a\tz\n")
    with pytest.raises(UserError, match=r"b.tsv, line 1: no training example has the label 'z'; known: x, y"):
        load_file(train, data__valid_path=str(valid))
    valid.write_text("a\tx\n")
    with pytest.raises(UserError, match=r"no example of valid has the label 'y': add one to the file of config\.data"):
        load_file(train, data__valid_path=str(valid))
    train.write_text("a\tx\nb\tx\nc\ty\nd\ty\n")
    with pytest.raises(UserError, match=r"has the label 'y': set another .*seed, a larger .*valid_share, or .*valid_p"):
        load_file(train, data__valid_share=0.25, data__seed=1)


@pytest.mark.parametrize(
    ("content", "line", "found"),
    [
        ('bad,fine\ngood,"It was\nfun\nbad,Oh\n', 2, 4),  # read to the end
        ('bad,fine\ngood,"It was\nbad,"Oh"\n', 2, 3),  # read to the next quote
        ('bad,fine\n"a ""b""\nc","It was\nbad,Oh\n', 2, 4),  # the row begins a line earlier
        ('bad,fine\ngood,"It"was\n', 2, 2),
    ],
)
def test_a_quote_that_is_not_closed_is_named_by_the_line_where_its_row_begins(tmp_path, content, line, found):
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=rf"a\.csv, line {line}: .*found in line {found}: is a quote not closed"):
        load_file(path, data__format="csv", data__valid_share=0.0)


def test_examples_that_are_training_examples_too_are_counted(tmp_path, capsys):
    """Whole examples: the same text with another label is another one."""
    train, valid, test = tmp_path / "a.tsv", tmp_path / "b.tsv", tmp_path / "c.tsv"
    train.write_text("a b\tx\na c\ty\nd\ty\n")
    valid.write_text("a b\tx\na c\tx\na b\tx\nz\ty\n")
    test.write_text("q\tx\nr\ty\n")
    for corpus in ("labelled", "pairs"):
        data = labelled.config(train, data__valid_path=str(valid), data__test_path=str(test)).data
        data.corpus = corpus
        load(data, None, ("train", "valid"))
        lines = capsys.readouterr().err.splitlines()
        said = "2 of 4 examples are training examples too, so the score of valid may mislead"
        assert lines == [f"warning: config.data.valid_path: {said}"]
        load(data, None, ("test",))
        assert capsys.readouterr().err == "", "it was said when the run began"


@pytest.mark.parametrize("corpus", ["labelled", "pairs"])
def test_drawn_examples_that_are_training_examples_too_are_counted(tmp_path, capsys, corpus):
    path = tmp_path / "a.tsv"
    path.write_text("a b\tx\n" * 6 + "a c\ty\n" * 6)
    data = labelled.config(path, data__valid_share=0.25, data__seed=1).data
    data.corpus = corpus
    load(data, None, ("train", "valid"))
    said = "3 of 3 drawn examples are training examples too, so the score of valid may mislead"
    assert capsys.readouterr().err.splitlines() == [f"warning: config.data.valid_share: {said}"]
    path.write_text("".join(f"a {i}\t{'xy'[i % 2]}\n" for i in range(16)))
    load(data, None, ("train", "valid"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("corpus", "tokenizer", "found"),
    [
        ("labelled", "spaces", "tokens that spell special symbols are read as these: '<unk>' 2"),
        ("labelled", "keras", None),
        ("pairs", "spaces", "tokens that spell special symbols are read as these: '<unk>' 3, '<eos>' 2"),
        ("pairs", "characters", "tokens that spell special symbols are read as these: '\ufffd' 1"),
    ],
)
def test_words_that_spell_special_symbols_are_counted(tmp_path, capsys, corpus, tokenizer, found):
    path = tmp_path / "a.tsv"
    path.write_text("a <unk> <eos>\tx\n<unk> b\ufffd <unk>s\ty\n<eos>\t<unk>\n", encoding="utf-8")
    data = labelled.config(path, data__tokenizer=tokenizer, data__valid_share=0.0).data
    data.corpus = corpus
    load(data, None, ("train", "valid"))
    assert capsys.readouterr().err == (f"warning: config.data.path: {found}\n" if found else "")


def test_folders_of_several_directories_are_not_classes(tmp_path):
    for name in ("train/pos/a", "train/neg/b", "test/pos/c"):
        path = tmp_path / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a text")
    with pytest.raises(UserError, match="a directory of one folder per class"):
        load_file(tmp_path / "texts", data__format="folders", data__valid_share=0.0)


# --- Words of other splits ------------------------------------------------------------------------------------------


def write_splits(tmp_path):
    """{key: path}: only valid has the word z, only test y."""
    texts = {"path": "b a b\tx\nb c\ty\n", "valid_path": "a z\tx\nc\ty\n", "test_path": "y a\tx\n"}
    for key, text in texts.items():
        (tmp_path / key).write_text(text)
    return {f"data__{key}": str(tmp_path / key) for key in texts}


def test_words_of_valid_and_test_are_symbols_only_if_asked_for(tmp_path):
    paths = write_splits(tmp_path)
    found = {words: load_file("", **paths, data__words=words) for words in ("train", "all_splits")}
    assert found["train"].vocabulary.symbols == ("<unk>", "b", "a", "c")
    assert found["all_splits"].vocabulary.symbols == ("<unk>", "b", "a", "c", "y", "z")
    np.testing.assert_array_equal(*(corpus.splits["train"].tokens for corpus in found.values()))
    assert [texts(corpus, "valid")[0][0] for corpus in found.values()] == ["a <unk>", "a z"]
    limited = load_file("", **paths, data__words="all_splits", data__max_vocabulary=3)
    assert limited.vocabulary.symbols == ("<unk>", "b", "a")


@pytest.mark.parametrize("words", labelled_text.WORDS)
def test_a_registered_test_file_is_read_before_training_only_for_its_words(tmp_path, monkeypatch, words):
    sentences = {"train": "EU B-ORG\nsees O\n", "valid": "Rome O\n", "test": "Oslo B-LOC\n"}
    files = {
        split: place(tmp_path, f"conll/{split}.txt", text.replace(" ", " X X ").encode())
        for split, text in sentences.items()
    }
    register(monkeypatch, "conll2003_ner", **files)
    data = data_config(corpus="conll2003_ner", words=words)
    corpus = load(data, str(tmp_path), ("train", "valid"))
    assert corpus.splits.keys() == {"train", "valid"}
    extra = ("Oslo", "Rome") if words == "all_splits" else ()
    assert corpus.vocabulary.symbols == ("<unk>", "EU", "sees", *extra)
    assert corpus.vocabulary.labels == ("B-ORG", "O"), "no label of the test text"
    assert len(corpus.provenance["sources"]) == (3 if extra else 2)
    again = load(data, str(tmp_path), ("valid",), corpus.vocabulary)
    assert again.splits["valid"].tokens.tolist() == corpus.splits["valid"].tokens.tolist()


def test_imdb_can_be_validated_on_its_test_half():
    files = {"train": "neg\t1\t0_1\tBad.\npos\t9\t1_9\tGood film\n", "test": "pos\t8\t0_8\tA good one\n"}
    name, data = "imdb_test_as_valid", labelled.config("unused").data
    assert CORPORA[name].files["valid"] == CORPORA["imdb"].files["test"]
    texts_of = {"train": files["train"], "valid": files["test"]}
    vocabulary, splits, _ = CORPORA[name].build(data, texts_of.__getitem__, ("train", "valid"), None)
    assert [len(splits[split]) for split in ("train", "valid")] == [2, 1]
    assert [vocabulary.symbols[i] for i in splits["valid"].tokens] == ["<start>", "<unk>", "good", "<unk>"]
