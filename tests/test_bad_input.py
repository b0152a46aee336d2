"""Bad texts and bad configs end with one clear line, and whatever is drawn either trains or does so.

The whole table of values, key by key, is tried in tests/soak/soak_bad_input.py.
"""

import hypothesis
import pytest

import launch
from configs import loading
from lm.errors import UserError
from lm.model.language_model import make_model
from tests.helpers import bad_input
from tests.helpers.bad_input import SOUND, TEXTS, assert_sound, attempt

# text -> what its error says; "" where it trains.
SAID_OF_TEXTS = {
    "sound": "",
    "empty": "the file has no text",
    "one character": "would be empty: the whole text has only 1 characters",
    "shorter than a batch": "would be empty: the whole text has only 2 characters",
    "white space only": "the file has no text",
    "line ends only": "the file has no text",
    "not UTF-8": "byte 300 (0xff) is not UTF-8",
    "Latin-1": "byte 7 (0xf6) is not UTF-8",
    "UTF-16": "byte 0 (0xff) is not UTF-8",
    "cut inside a character": f"byte {len(SOUND)} (0xc3) is not UTF-8",
    "encoded surrogate": f"byte {len(SOUND)} (0xed) is not UTF-8",
    "NUL": "byte 200 is NUL",
    "BOM only": "the file has no text",
    "an archive": "is not UTF-8",
}

# changes -> what the error says.
SAID_OF_CONFIGS = [
    ({"data.batch_size": 1000}, "config.data.batch_size=1000"),
    ({"data.unroll": 0}, "config.data.unroll must be at least 1, not 0"),
    ({"data.unroll": 10**12}, "config.data.unroll=1000000000000"),
    ({"optim.learning_rate": -0.1}, "config.optim.learning_rate must be above 0 and finite in 32 bits, not -0.1"),
    ({"optim.learning_rate": "nan"}, "config.optim.learning_rate must be above 0 and finite in 32 bits, not nan"),
    (
        {"optim.learning_rate": 1e-46},
        "config.optim.learning_rate must be above 0 and finite in 32 bits, and not below 1",
    ),
    ({"optim.learning_rate": 1e38, "train.steps": 9}, "the loss is not finite at step "),
    ({"keep_prob.output": 0}, "config.keep_prob.output must be above 0 and at most 1, not 0.0"),
    ({"keep_prob.output": 2}, "config.keep_prob.output must be above 0 and at most 1, not 2.0"),
    ({"model.cell": "lstn"}, "config.model.cell: unknown 'lstn'"),
    ({"model.hidden": (0,)}, "config.model.hidden[0] must be between 1 and 2147483647, not 0"),
    ({"model.hidden": (10**30,)}, f"config.model.hidden[0] must be between 1 and 2147483647, not {10**30}"),
    ({"model.hidden": (10**7,)}, "of memory and"),
    (
        {"model.cell": "mogrifier", "model.mogrifier_rounds": 10**6},
        "config.model.mogrifier_rounds must be between 0 and 100, not 1000000",
    ),
    (
        {"model.cell": "lstm_projection", "model.projection": 2**40},
        f"config.model.projection must be between 0 and 2147483647, not {2**40}",
    ),
    ({"init.output": ("normal",)}, "config.init.output must be ('normal', mean, deviation) with numbers finite in"),
    (
        {"init.output": ("uniform", 0.1, "a")},
        "config.init.output must be ('uniform', low, high) with numbers finite in",
    ),
    ({"init.output": ()}, "config.init.output: unknown ''"),
    ({"sample.prompt": "THE \u2603"}, "config.sample.prompt: characters that are not in the vocabulary: 'T', 'H'"),
    ({"sample.number": 10**12}, "lower config.sample.number"),
    ({"sample.seed": -1}, "config.sample.seed must be between 0 and 4294967295, not -1"),
    ({"seed": 2**32}, "config.seed must be between 0 and 4294967295, not 4294967296"),
    ({"train.steps": 2**31}, "too many for a 32-bit counter: lower config.train.steps"),
    (
        {"train.steps_per_dispatch": 10**9},
        "config.train.steps_per_dispatch must be between 1 and 100000, not 1000000000",
    ),
    ({"optim.warmup_steps": 2**31}, "config.optim.warmup_steps must be between 0 and 2147483647, not 2147483648"),
    (
        {"data.corpus": "synthetic", "data.size": 10**15},
        "config.data.size must be between 1 and 1073741823, not 1000000000000000",
    ),
    ({"evaluation.during": "batched", "evaluation.batch_size": 30}, "valid cannot be scored: a text of 44 tokens"),
    ({"evaluation.protocols": ("batched",), "evaluation.unroll": 50}, "rows of config.evaluation.unroll=50"),
    ({"checkpoint.keep": 0}, "config.checkpoint.keep must be at least 1, not 0"),
    ({"evaluation.during": "notebook", "evaluation.predictions": 10**12}, "lower config.evaluation.predictions"),
]


@pytest.mark.parametrize("name", SAID_OF_TEXTS)
def test_a_text_trains_or_is_refused_with_what_is_wrong_with_it(name):
    outcome = attempt(TEXTS[name], {})
    assert_sound(outcome)
    assert SAID_OF_TEXTS[name] in outcome.said
    assert (outcome.status == 0) == (not SAID_OF_TEXTS[name])


@pytest.mark.parametrize(("changed", "said"), SAID_OF_CONFIGS, ids=str)
def test_a_config_that_cannot_run_is_refused_with_its_key(changed, said):
    outcome = attempt(SOUND, changed)
    assert_sound(outcome)
    assert outcome.status == 2
    assert said in outcome.said


@pytest.mark.slow
@hypothesis.settings(max_examples=150, deadline=None, database=None, derandomize=True)
@hypothesis.given(bad_input.texts(), bad_input.changes())
def test_whatever_is_drawn_trains_with_finite_losses_or_ends_with_one_line(text, changed):
    assert_sound(attempt(text, changed))


def test_pairs_of_too_many_symbols_are_refused():
    config = loading.load(str(loading.CONFIGS / "synthetic/lstm.py"))
    config.model.input, config.model.embedding_size = "bigram", 1
    make_model(config, 46_340)
    with pytest.raises(UserError, match="too many pairs for 32 bits"):
        make_model(config, 46_341)


def test_running_out_of_memory_ends_with_one_line(monkeypatch, capsys, tmp_path):
    """Where preflight could not foresee it: the compiler or the system refuses."""

    def exhausted(*arguments, **options):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9876 bytes.\n at a place")

    monkeypatch.setattr("experiments.train.train", exhausted)
    assert launch.main(["launch.py", f"--workdir={tmp_path}/run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: out of memory (RESOURCE_EXHAUSTED: Out of memory allocating 9876 bytes.): lower")


@pytest.mark.parametrize("flag", ["--workdir=", "--data_dir=", "--config="])
def test_a_name_too_long_for_a_file_ends_with_one_line(flag, capsys, tmp_path):
    workdir = [] if flag == "--workdir=" else [f"--workdir={tmp_path}/run"]
    assert launch.main(["launch.py", f"{flag}{tmp_path}/{'a' * 300}", *workdir]) == 2
    assert_one_error(capsys.readouterr().err, "too long" if flag == "--workdir=" else "aaa")


def assert_one_error(err, words):
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert words in err
