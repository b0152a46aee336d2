"""Warns about the user's own files: data that two splits share, and words that spell special symbols."""

import collections
import io
import re
import sys
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

from lm.data.labelled import with_valid
from lm.data.text import END_OF_SENTENCE, Vocabulary

LONG_LINE = 20  # characters; two texts rarely share a line of this length by chance


def warn_of_shared(examples: Mapping[str, Sequence[Hashable]], data):
    """Warns if valid or test has examples that are also training examples.

    examples: {split: examples of its file}. If valid is drawn from the training file, it is compared with the rest.
    """
    parts = with_valid(examples, data)
    for name in [split for split in parts if split != "train"]:
        drawn, part = name not in examples, parts[name]
        train = set(parts["train"] if drawn else examples["train"])
        if shared := sum(example in train for example in part):
            key, kind = ("valid_share", "drawn ") if drawn else (f"{name}_path", "")
            found = f"{shared} of {len(part)} {kind}examples are training examples too"
            _warn(f"config.data.{key}: {found}, so the score of {name} may mislead")


def warn_of_shared_lines(parts: Mapping[str, str], is_divided: bool):
    """Warns if more than half the lines of valid or test are also lines of train. Ignores lines below LONG_LINE.

    is_divided: whether the parts come from one text
    """
    lines = {name: [hash(line) for line in _long_lines(part)] for name, part in parts.items() if name != "train"}
    wanted = set().union(*lines.values())  # small, whereas train may have 100 MB
    shared = {line for line in map(hash, _long_lines(parts["train"])) if line in wanted} if wanted else set()
    for name, some in lines.items():
        if (count := sum(line in shared for line in some)) > len(some) / 2:
            key = "fractions" if is_divided else f"{name}_path"
            found = f"{count} of {len(some)} lines of {name} ({count / len(some):.0%}) are training lines too"
            _warn(f"config.data.{key}: {found}, so the score of {name} may mislead")


def _long_lines(text: str) -> Iterable[str]:
    return (line for line in map(str.strip, io.StringIO(text)) if len(line) >= LONG_LINE)


def warn_of_special(tokens: Mapping[str, Iterable[str]], special: Collection[str]):
    """Warns about tokens that spell special symbols, such as <unk>: they are read as these symbols.

    tokens: {split: tokens of its file}
    """
    for name, some in tokens.items():
        if counts := collections.Counter(token for token in some if token in special):
            key = "path" if name == "train" else f"{name}_path"
            shown = ", ".join(f"{symbol!r} {count}" for symbol, count in counts.most_common())
            _warn(f"config.data.{key}: tokens that spell special symbols are read as these: {shown}")


def warn_of_header(train: Sequence, data):
    """Warns if the first row of a table looks like a header: its label alone, of three or more, occurs once."""
    first, counts = train[0].labels[0], collections.Counter(label for row in train for label in row.labels)
    is_table = data.format in ("tsv", "csv") and data.header == "none"
    if is_table and len(counts) > 2 and [label for label, count in counts.items() if count == 1] == [first]:
        _warn(f"{train[0].where} alone has the label {first!r}: if it is a header, set config.data.header=first_line")


def warn_of_special_in_text(texts: Mapping[str, str], vocabulary: Vocabulary):
    """`warn_of_special` for language-model texts. At level word, <eos> is special too: line ends become <eos>."""
    of_words = vocabulary.level == "word"
    special = [symbol for symbol in (vocabulary.unknown, END_OF_SENTENCE if of_words else None) if symbol]
    pattern = "|".join(map(re.escape, special))
    whole = re.compile(rf"(?<!\S)(?:{pattern})(?!\S)" if of_words else pattern)
    spelt = {name: text for name, text in texts.items() if any(symbol in text for symbol in special)}  # fast
    warn_of_special({name: whole.findall(text) for name, text in spelt.items()}, special)


def _warn(message: str):
    print(f"warning: {message}", file=sys.stderr)
