"""Every key has a rule, and a value that breaks it is refused in the rule's words, wherever it comes from."""

import math
import re

import ml_collections
import pytest

from configs import benchmark, rules
from configs.base import base
from configs.loading import flatten
from configs.rules import Initialiser, Integer, Name, Number, Rule, Text, TupleOf, check_values
from configs.sweeps._definition import sweep as sweep_definition
from experiments import train as train_experiment
from experiments.sweeps.space import make_space
from lm.errors import UserError
from lm.training.lanes import train_lanes
from lm.training.setup import make_setup
from tests.helpers import tiny
from tests.test_configs import CONFIGS
from tests.test_configs import load as load_config

DEFAULTS = flatten(base())


def with_value(key: str, value, config: ml_collections.ConfigDict | None = None) -> ml_collections.ConfigDict:
    """A config, of whatever type the value is."""
    config = config or tiny.config()
    *groups, last = key.split(".")
    part = config
    for group in groups:
        part = part[group]
    with part.ignore_type():
        part[last] = value
    return config


def wrong_values(rule: Rule) -> list[tuple[object, str]]:
    """(value, what the error says after the key) of every kind of mistake that a rule knows."""
    match rule:
        case Text():
            return [(3, " must be text, not 3"), (("a",), " must be text, not ('a',)")]
        case Integer(low, high, exception):
            wrong = [(x, f" must be an integer, not {x!r}") for x in (2.5, True, "many", math.nan, (1,))]
            outside = [low - 1, *([] if high is None else [high + 1])]
            return wrong + [(x, f" must be {rule.words}, not {x}") for x in outside if x != exception]
        case Number(low, high, excluding):
            wrong = [(x, f" must be a number, not {x!r}") for x in ("fast", (1.0,), None)]
            outside = [math.nan, math.inf, -math.inf, low - 1, 2 * high, *([] if excluding is None else [excluding])]
            return wrong + [(x, f" must be {rule.words}, not {x!r}") for x in outside]
        case Name():
            said = f": unknown 'no such'; known: {', '.join(rule.known)}"
            return [(3, " must be text, not 3"), ("no such", said), ("", ": unknown ''; known: ")]
        case TupleOf(item, least):
            [inner, *_], short = wrong_values(item), ("x",) * (least - 1)
            wrong = [(3, " must be a tuple, not 3"), ("ab", " must be a tuple, not 'ab'")]
            wrong += [(short, f" must be {rule.words}, not {short!r}")] if least else []
            return [*wrong, ((inner[0],) * max(least, 1), f"[0]{inner[1]}")]
        case Initialiser(shape):
            forms = [("uniform",), ("uniform", 1.0, math.nan), ("uniform", -math.inf, 1.0), ("uniform", True, 1.0)]
            form = " must be ('uniform', low, high) with numbers finite in 32 bits, not "
            unknown = [(("no such",), ": unknown 'no such'; known: zeros, "), ((), ": unknown ''; known: zeros, ")]
            unfit = [(("orthogonal",), " must be an initialiser of vectors, not ('orthogonal',)")]
            wrong = [("zeros", " must be a tuple, not 'zeros'"), *unknown, *((x, form + repr(x)) for x in forms)]
            wrong.append((("uniform", 1.0, -1.0), " must be a range with low <= high, not ('uniform', 1.0, -1.0)"))
            return wrong + (unfit if shape == "vector" else [])
    raise TypeError(rule)


WRONG = [(key, value, said) for key, rule in rules.RULES.items() for value, said in wrong_values(rule)]


# --- The table ------------------------------------------------------------------------------------------------------


def test_every_key_has_its_rule_and_every_rule_its_key():
    assert rules.RULES.keys() == DEFAULTS.keys()


def test_tables_of_other_configs_are_whole():
    own = sweep_definition("a", base())
    assert rules.SWEEP_RULES.keys() == set(own) - {"run", "space"}
    assert rules.BENCHMARK_RULES.keys() == set(benchmark.get_config()) - {"lm"}


def test_every_default_keeps_its_rule():
    check_values(base())
    check_values(sweep_definition("a", base()), rules.SWEEP_RULES)
    check_values(benchmark.get_config(), rules.BENCHMARK_RULES)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_keeps_the_rules(name):
    check_values(load_config(name))


# --- Wrong values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "value", "said"), WRONG, ids=str)
def test_a_wrong_value_is_refused_in_the_words_of_its_rule(key, value, said):
    with pytest.raises(UserError) as caught:
        check_values(with_value(key, value))
    assert str(caught.value).startswith(f"config.{key}{said}")
    assert "\n" not in str(caught.value)


FIRST_WRONG = {key: (value, said) for key, value, said in reversed(WRONG)}


@pytest.mark.parametrize("key", FIRST_WRONG)
def test_training_lanes_and_the_reading_of_a_corpus_refuse_it_in_the_same_words(key, tmp_path):
    value, said = FIRST_WRONG[key]
    message = f"^{re.escape(f'config.{key}{said}')}"
    config, corpus = with_value(key, value), tiny.corpus()
    with pytest.raises(UserError, match=message):
        make_setup(config, corpus)
    with pytest.raises(UserError, match=message):
        train_lanes(tiny.setups([tiny.config(), config]), [str(tmp_path / "0"), str(tmp_path / "1")])
    with pytest.raises(UserError, match=message):
        train_experiment.load_corpus(config, None)
    assert not any(tmp_path.iterdir())


# A value of the key's own type, as a sweep's space may have it.
IN_A_SPACE = {"seed": -1, "optim.learning_rate": 0.0, "model.cell": "ltsm", "keep_prob.input": 2.0, "sample.top_k": -1}


MANY = repr((4,) * 100_000)


@pytest.mark.parametrize("key", IN_A_SPACE)
def test_a_sweep_refuses_it_in_the_same_words(key):
    value, config = IN_A_SPACE[key], sweep_definition("a", tiny.config())
    with pytest.raises(UserError) as expected:
        check_values(with_value(key, value))
    config.space = ((key, "choice", DEFAULTS[key], value),)
    with pytest.raises(UserError) as caught:
        make_space(config)
    assert str(caught.value) == str(expected.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("train.report_every", 0, "config.train.report_every must be at least 1, not 0"),
        ("data.max_vocabulary", 1, "config.data.max_vocabulary must be 0 or at least 2, not 1"),
        ("data.fractions", (1.0,), "config.data.fractions must be a tuple of 3, not (1.0,)"),
        ("model.hidden", (), "config.model.hidden must be a tuple of 1 to 100, not ()"),
        ("model.hidden", (4,) * 100_000, f"config.model.hidden must be a tuple of 1 to 100, not {MANY[:100]}..."),
        ("model.hidden", (4, 0), "config.model.hidden[1] must be between 1 and 2147483647, not 0"),
        ("keep_prob.output", 1.5, "config.keep_prob.output must be above 0 and at most 1, not 1.5"),
        ("zoneout.memory", 1.0, "config.zoneout.memory must be at least 0 and below 1, not 1.0"),
        ("optim.learning_rate", math.nan, "config.optim.learning_rate must be above 0 and finite in 32 bits, not nan"),
        ("optim.weight_decay", -1e-6, "config.optim.weight_decay must be at least 0 and finite in 32 bits, not -1e-06"),
        (
            "evaluation.temperature",
            1e-9,
            "config.evaluation.temperature must be at least 0.0001 and at most 10000, not 1e-09",
        ),
        ("sample.temperature", 0.0, "config.sample.temperature must be at least 0.0001 and at most 10000, not 0.0"),
        ("seed", 2**32, "config.seed must be between 0 and 4294967295, not 4294967296"),
        (
            "loss.weighting",
            "median",
            "config.loss.weighting: unknown 'median'; known: mean, sum_over_time, sum, last_step_sum; "
            "did you mean mean?",
        ),
        (
            "evaluation.splits",
            ("valid", "tset"),
            "config.evaluation.splits[1]: unknown 'tset'; known: train, valid, test; did you mean test?",
        ),
        (
            "init.input",
            ("uniform", 0.1),
            "config.init.input must be ('uniform', low, high) with numbers finite in 32 bits, not ('uniform', 0.1)",
        ),
    ],
)
def test_the_words(key, value, said):
    with pytest.raises(UserError) as caught:
        check_values(with_value(key, value))
    assert str(caught.value) == said


def test_a_truth_value_is_no_number():
    """ConfigDict turns it into 0.0 or 1.0 where a key is a float; JSON may hold one."""
    for rule in (Integer(0), Number(0)):
        with pytest.raises(UserError, match=r"config\.a must be an? (integer|number), not True"):
            rule.check("config.a", True)


def test_what_is_allowed_at_the_ends():
    for key, value in (("data.max_vocabulary", 0), ("data.max_vocabulary", 2), ("keep_prob.output", 1),
                       ("zoneout.memory", 0), ("seed", 2**32 - 1), ("optim.learning_rate", 3.4e38),
                       ("evaluation.protocols", ()), ("train.steps_per_dispatch", 100_000)):  # fmt: skip
        check_values(with_value(key, value))
