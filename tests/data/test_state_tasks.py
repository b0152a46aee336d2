"""Generated tasks of state tracking, against plain loops."""

import numpy as np
import pytest

from configs.state_tracking import get_config
from lm.data.corpora import load
from lm.data.state_tracking import STATE_TASKS
from lm.errors import UserError


def states(task, symbols):
    """The label of every symbol, by the words of the task's description."""
    found, total, sign = [], 0, 1
    for symbol in symbols:
        if task == "parity":
            total = (total + int(symbol)) % 2
            found.append(("even", "odd")[total])
        elif task == "even_pairs":
            found.append("yes" if symbol == symbols[0] else "no")
        elif task == "cycle":
            total = (total + {"-": -1, "0": 0, "+": 1}[symbol]) % 5
            found.append(str(total))
        elif symbol in "+-":
            sign = -1 if symbol == "-" else 1
            found.append(str(total))
        else:
            total = (total + sign * int(symbol)) % 5
            found.append(str(total))
    return found


@pytest.mark.parametrize("task", STATE_TASKS)
def test_labels_are_the_states(task):
    config = get_config(task)
    config.data.size = 50
    corpus = load(config.data, None)
    vocabulary = corpus.vocabulary
    for name, (shortest, longest) in {"train": (1, 40), "valid": (1, 40), "test": (40, 256)}.items():
        split = corpus.splits[name]
        assert len(split) == (50 if name == "train" else 500)
        assert shortest <= split.lengths.min()
        assert split.lengths.max() <= longest
        ends = split.starts[1:-1]
        for tokens, labels in zip(np.split(split.tokens, ends), np.split(split.labels, ends), strict=True):
            symbols = [vocabulary.symbols[i] for i in tokens]
            assert [vocabulary.labels[i] for i in labels] == states(task, symbols)
            if task == "modular":
                assert all((symbol in "+-") == (place % 2 == 1) for place, symbol in enumerate(symbols))
    assert set(vocabulary.symbols) == {vocabulary.symbols[i] for i in corpus.splits["train"].tokens}


def test_more_texts_than_fit_are_refused():
    config = get_config("cycle")
    config.data.size = 2_000_000
    with pytest.raises(UserError, match=r"config\.data\.size must be at most 1000000"):
        load(config.data, None)
