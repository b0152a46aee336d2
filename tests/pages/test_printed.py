"""Printed scores, in the units by which texts of different tokens compare."""

import math

import pytest

from configs.ptb.zaremba import get_config
from experiments.pages.printed import changed_from_source, shown_score
from lm.runs.plain import plain


def row(protocol="exact", nats=1.0):
    """19 targets of a text of 20 tokens."""
    found = {"which": "final", "split": "test", "protocol": protocol, "targets": 19, "nats": 19 * nats}
    return found | {"perplexity": math.exp(nats), "bits_per_symbol": nats / math.log(2)}


def about(**data):
    evaluation = {"temperature": 1.5, "batch_size": 20, "unroll": 35}
    return {"data": {"tokens": {}, **data}, "config": {"model": {"input": "embedding"}, "evaluation": evaluation}}


def test_a_score_states_the_settings_of_its_protocol():
    assert "protocol exact, 19 targets" in shown_score(row(), about())
    assert "protocol temperature (temperature 1.5), 19 targets" in shown_score(row("temperature"), about())
    assert "protocol batched (batch_size 20, unroll 35), 19 targets" in shown_score(row("batched"), about())


def test_bits_per_byte_count_the_first_tokens_too():
    """20 characters in 20 bytes: bits per byte are bits per symbol."""
    assert "1.4427 bits per symbol, 1.4427 bits per byte, " in shown_score(row(), about(bytes={"test": 20}))


@pytest.mark.parametrize(("words", "expected"), [(5, math.exp(4)), (4, math.exp(5))])
def test_perplexity_per_word_of_a_text_of_characters(words, expected):
    """20 characters at 1 nat each in 5 words: 4 nats a word."""
    assert f", perplexity {expected:.2f} per word, " in shown_score(row(), about(words={"test": words, "valid": 1}))


def test_bytes_of_a_text_with_unknown_symbols_are_not_all_predicted():
    shown = shown_score(row(), about(bytes={"test": 20}, unknown_rate={"test": 0.25}))
    assert "1.4427 bits per byte with 25.0% of the symbols unknown, " in shown


def test_other_units_need_every_token_scored_once():
    assert " per word" not in shown_score(row("batched"), about(words={"test": 5}, bytes={"test": 20}))
    assert " per byte" not in shown_score(row("batched"), about(words={"test": 5}, bytes={"test": 20}))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ""),
        ({"seed": 3, "train.devices": 2, "sample.number": 1}, ""),
        (
            {"keep_prob.output": 0.7},
            "differs from configs/ptb/zaremba.py:small (keep_prob.output: 1.0 -> 0.7)",
        ),
        ({"name": "ptb/zaremba:none", "keep_prob.output": 0.7}, ""),
    ],
)
def test_a_run_with_overrides_differs_from_its_source(changes, expected):
    config = get_config("small")
    config.update_from_flattened_dict(changes)
    assert changed_from_source(plain(config)).removeprefix("this run ") == expected
