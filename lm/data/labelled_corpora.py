"""Registered corpora of labelled text: `LABELLED`, a part of CORPORA (lm/data/corpora.py)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lm.data import labelled
from lm.data.definition import Definition
from lm.data.files import RegisteredFile, files_in
from lm.data.labelled import Row
from lm.data.own_files import OwnFile
from lm.data.text import SPLITS


class Form(NamedTuple):
    """How a file is read. The first fields mean what the keys of config.data with these names mean.

    special: the first symbols of the vocabulary; start: a symbol put before each text
    """

    format: str
    columns: tuple[int, int]
    tokenizer: str
    header: str = "none"
    special: tuple[str, ...] = ()
    start: str = ""


def built(rows: Mapping[str, Sequence[Row]], data, splits, given, special=(), start="", labels=()) -> tuple:
    """Returns (vocabulary, {split: Examples}, provenance). Valid is held out of train if it has no file.

    splits: the splits to encode; rows of other splits only add words to the vocabulary (config.data.words)
    """
    rows = labelled.with_valid(labelled.prepare_words(rows, data), data)
    vocabulary = given or labelled.collect_vocabulary(rows, data, special, labels)
    arrays = {name: labelled.encode_rows(some, vocabulary, start) for name, some in rows.items() if name in splits}
    return vocabulary, arrays, {"examples": {name: len(some) for name, some in arrays.items()}}


def _needed(data, splits, given) -> set[str]:
    """The splits to read: the requested ones, train, and with config.data.words=all_splits every split."""
    return {*splits, "train", *(SPLITS if data.words == "all_splits" and not given else ())}


def _corpus(form: Form, files: dict[str, RegisteredFile], source: tuple, purpose: str, divides=()) -> Definition:
    """Defines a corpus with one file per split. source: licence and homepage"""

    def build(data, text, splits, given):
        rows = {}
        for name in SPLITS:
            if name in files and name in _needed(data, splits, given):
                file = OwnFile(files[name].path, text(name).encode())
                rows[name] = labelled.read_rows([file], form, name)
        return built(rows, data, splits, given, form.special, form.start)

    return Definition(build, files, *source, purpose, divides=divides, tokenizer=form.tokenizer, start=form.start)


def _atis(data, text, splits, given) -> tuple:
    """Flight queries with a slot per word. Drops the first and last token of each line."""
    words, slots = text("words").split(), text("slots").split()

    def named(names: list[str], line: str) -> tuple[str, ...]:
        return tuple(names[int(number)] for number in line.split()[1:-1])

    rows = {}
    for name in ("train", "test"):
        if name in _needed(data, splits, given):
            pairs = zip(text(f"{name}_words").splitlines(), text(f"{name}_slots").splitlines(), strict=True)
            rows[name] = [
                Row(named(words, query), named(slots, tags), f"atis.{name}, line {line}")
                for line, (query, tags) in enumerate(pairs, 1)
            ]
    return built(rows, data, splits, given, labels=slots)


_IMDB = files_in(
    "imdb",
    """
    train train.tsv.gz 12_895_292 0f7910fd8542f6a005dde24da8471bdaa74db503a37001874bf1146692da6b61
    test  test.tsv.gz  12_590_331 d3d890f3e7a4f09e9ea323236453b17765796ea3c9625ed07f1b62a28773a938
    """,
)
_DBPEDIA = files_in(
    "dbpedia",
    """
    train train.csv.gz 1_581_618 b6631a9b087f5b5ec2fca14e17fc15711940ac6806025e624e3fe9daf64f779b
    valid valid.csv.gz   593_402 a77f556683345d6c019f7b774944b22762215ebdbe443276de37557b187eb026
    test  test.csv.gz    588_446 7ec47dbb2405701dc0757150d3c58e4489f6b6f6ccf86856e5f2d6d91179f471
    """,
)
_CONLL = files_in(
    "conll2003_full",
    """
    train train.txt 3_283_420 213953b5522fb7924802d883e50f027b2c6ffb5d4d0e63368ed82909f9b60423
    valid valid.txt   827_443 c02eb19809eafb83998326a0481942eb37d96f31826ae387cfe8773699969f5b
    test  test.txt    748_095 dc4ac7f3d6d01a6bec59261814561da3b287b6b493b97d1f69c580b52ec1831b
    """,
    "https://raw.githubusercontent.com/Franck-Dernoncourt/NeuroNER/master/neuroner/data/conll2003/en",
)
_ATIS = files_in(
    "atis",
    """
    words       atis.dict.vocab.csv    5_878 81354b8b70610e3ee560f38ee366fc574f0b71e3f4b14c955935b8e4779c865c
    slots       atis.dict.slots.csv    2_447 9da4302a6a1065dd8742d87338ba842ba9c018623e36c84f431e6620c5cd1fd6
    train_words atis.train.query.csv 265_055 786fe1baab85080d027d10582f99559952cb3e1a9da532a9fc6ce0ae1205372e
    train_slots atis.train.slots.csv 247_359 fd118158260901ba632ca810907ce0d8431283f0bb80ee95b8c76c29a5b69b05
    test_words  atis.test.query.csv   43_820 e1dc07203dca048ba62d2f5a28fe02da56553dfc95fd0040f5ec115f1ce64440
    test_slots  atis.test.slots.csv   40_663 eb349ca1bb463b9080d258f5feba7ed03a9a6ce3995f333612aab7ab53e08806
    """,
)
REUTERS = "Reuters: for research; not redistributed here", "https://www.clips.uantwerpen.be/conll2003/ner/"

# The test half is the validation split, as in Keras examples: accuracy on it is not test accuracy.
_IMDB_HALVES = {"train": _IMDB["train"], "valid": _IMDB["test"]}
# Keras's IMDB: its special symbols are padding, start of text, unknown word and an unused one.
_IMDB_FORM = Form("tsv", (3, 0), "keras", special=("<pad>", "<start>", "<unk>", "<unused>"), start="<start>")
_MAAS = "Maas et al. 2011: for research; not redistributed here", "https://ai.stanford.edu/~amaas/data/sentiment/"


def tokens_of(data, text: str) -> list[str]:
    """Tokenizes a text in the same way as the corpus of config.data."""
    if data.corpus in LABELLED:
        tokenizer, start = LABELLED[data.corpus].tokenizer, LABELLED[data.corpus].start
    else:
        tokenizer, start = data.tokenizer, ""
        if data.format == "columns":
            tokenizer = "lower" if tokenizer == "lower" else "spaces"
    tokens = [labelled.digits_of(token, data.digits) for token in labelled.TOKENIZERS[tokenizer](text)]
    return [*([start] if start else []), *tokens]


LABELLED = {
    "imdb": _corpus(
        _IMDB_FORM,
        _IMDB,
        _MAAS,
        "Film reviews, positive or negative, tokenized as by Keras. Valid is a random share of train.",
        labelled.DRAWN_BY,
    ),
    "imdb_test_as_valid": _corpus(
        _IMDB_FORM, _IMDB_HALVES, _MAAS, "As imdb, with the test half as validation split, as in Keras's examples."
    ),
    "dbpedia_subset": _corpus(
        Form("csv", (1, 0), "lower"),
        _DBPEDIA,
        ("CC BY-SA 3.0; not redistributed here", "https://www.dbpedia.org"),
        "First sentences of Wikipedia articles, with the class of the subject.",
    ),
    "conll2003_ner": _corpus(
        Form("columns", (0, 3), "spaces"), _CONLL, REUTERS, "News sentences, with a named-entity tag per word."
    ),
    "conll2003_pos": _corpus(
        Form("columns", (0, 1), "spaces"), _CONLL, REUTERS, "News sentences, with a part of speech per word."
    ),
    "atis": Definition(
        _atis,
        _ATIS,
        "Linguistic Data Consortium: for research; not redistributed here",
        None,
        divides=labelled.DRAWN_BY,
        tokenizer="spaces",
    ),
}
