"""A rule for every key of base(): its type, and its range or allowed names.

`check_values` rejects a value that breaks its key's rule. Rules between two keys, or between a key and the text, are
checked where both are used. Allowed names may be given as "module:NAME", a table that is imported when a value is
checked, so a new cell or corpus needs no change here.
"""

import importlib
import inspect
import math
import operator
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import ml_collections

from lm.errors import UserError, check_name, in_short, lookup

INT32 = 2**31 - 1
FLOAT32 = 3.4028234663852886e38  # the largest finite value
SMALLEST_FLOAT32 = 1.1754943508222875e-38  # float32 rounds smaller numbers to 0


class Rule(Protocol):
    """A condition on the value of a key."""

    def check(self, key: str, value: object) -> None:
        """Raises UserError, naming the key, if the value breaks the rule."""


@dataclass(frozen=True)
class Text:
    """Any text."""

    def check(self, key: str, value: object) -> None:
        if not isinstance(value, str):
            raise refusal(key, "text", value)


@dataclass(frozen=True)
class Integer:
    """An integer from low to high, or the exception; high None: no limit."""

    low: int
    high: int | None = None
    exception: int | None = None

    @property
    def words(self) -> str:
        words = f"at least {self.low}" if self.high is None else f"between {self.low} and {self.high}"
        return words if self.exception is None else f"{self.exception} or {words}"

    def check(self, key: str, value: object) -> None:
        if type(value) is not int:  # bool is a subclass
            raise refusal(key, "an integer", value)
        inside = self.low <= value and (self.high is None or value <= self.high)
        if not inside and value != self.exception:
            raise refusal(key, self.words, value)


@dataclass(frozen=True)
class Number:
    """A finite number from low to high; `excluding` is a bound that is not allowed itself."""

    low: float
    high: float = FLOAT32
    excluding: float | None = None

    @property
    def words(self) -> str:
        low = f"{'above' if self.excluding == self.low else 'at least'} {self.low:g}"
        if self.high == FLOAT32:
            return f"{low} and finite in 32 bits"
        return f"{low} and {'below' if self.excluding == self.high else 'at most'} {self.high:g}"

    def check(self, key: str, value: object) -> None:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise refusal(key, "a number", value)
        vanishes = 0 < abs(value) < SMALLEST_FLOAT32
        if not self.low <= value <= self.high or value == self.excluding or vanishes:
            raise refusal(key, f"{self.words}, and not below {SMALLEST_FLOAT32:g}" if vanishes else self.words, value)


@dataclass(frozen=True)
class Name:
    """One of the allowed names, or of the names in a table "module:NAME"."""

    allowed: tuple[str, ...] | str

    @property
    def known(self) -> Collection[str]:
        return imported(self.allowed) if isinstance(self.allowed, str) else self.allowed

    def check(self, key: str, value: object) -> None:
        if not isinstance(value, str):
            raise refusal(key, "text", value)
        check_name(value, self.known, key)


@dataclass(frozen=True)
class TupleOf:
    """A tuple of at least `least` and at most `most` items that all follow one rule."""

    item: Rule
    least: int = 0
    most: float = math.inf

    @property
    def words(self) -> str:
        return f"a tuple of {self.least}" + (f" to {self.most}" if self.most > self.least else "")

    def check(self, key: str, value: object) -> None:
        if not isinstance(value, tuple):
            raise refusal(key, "a tuple", value)
        if not self.least <= len(value) <= self.most:
            raise refusal(key, self.words, value)
        for index, item in enumerate(value):
            self.item.check(f"{key}[{index}]", item)


@dataclass(frozen=True)
class Initialiser:
    """A tuple (name, *numbers): a function of lm/model/initialisers.py and its arguments. shape: matrix or vector"""

    shape: str

    def check(self, key: str, value: object) -> None:
        if not isinstance(value, tuple):
            raise refusal(key, "a tuple", value)
        name, *numbers = value or ("",)
        Text().check(key, name)
        function = lookup(imported("lm.model.initialisers:INITIALISERS"), name, key)
        if self.shape == "vector" and name == "orthogonal":
            raise refusal(key, "an initialiser of vectors", value)
        wanted = list(inspect.signature(function).parameters)[3:]  # after key, shape, dtype
        finite = all(type(number) in (int, float) and abs(number) <= FLOAT32 for number in numbers)
        if len(numbers) != len(wanted) or not finite:
            raise refusal(key, f"({', '.join([repr(name), *wanted])}) with numbers finite in 32 bits", value)
        if wanted == ["low", "high"] and numbers[0] > numbers[1]:
            raise refusal(key, "a range with low <= high", value)


def refusal(key: str, words: str, value: object) -> UserError:
    """Returns the error "KEY must be WORDS, not VALUE"."""
    return UserError(f"{key} must be {words}, not {in_short(value)}")


def imported(reference: str) -> Any:
    """Imports the table that "module:NAME" refers to."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


# --- The table, in the order of base() ------------------------------------------------------------------------------

COUNT = Integer(1)
COUNT_OR_ZERO = Integer(0)
COUNT_32 = Integer(1, INT32)  # counted in 32 bits by compiled programs
COUNT_OR_ZERO_32 = Integer(0, INT32)
SEED = Integer(0, 2**32 - 1)  # of a larger seed, JAX would use only the lowest 32 bits
POSITIVE = Number(0, excluding=0)
TEMPERATURE = Number(1e-4, 1e4)  # lower values overflow; use sample.strategy = "greedy" instead
POSITIVE_OR_ZERO = Number(0)
KEEP_PROBABILITY = Number(0, 1, excluding=0)
RATE = Number(0, 1, excluding=1)
SHARE = Number(0, 1)
PROTOCOL = Name("lm.tasks:PROTOCOLS")

RULES: dict[str, Rule] = {
    "name": Text(),
    "source": Text(),
    "init_from": Text(),
    "task": Name("lm.tasks:TASKS"),
    "seed": SEED,
    "data.corpus": Name("lm.data.corpora:CORPORA"),
    "data.path": Text(),
    "data.valid_path": Text(),
    "data.test_path": Text(),
    "data.level": Name("lm.data.text:LEVELS"),
    "data.fractions": TupleOf(SHARE, 3, 3),
    "data.max_vocabulary": Integer(2, exception=0),
    "data.reset": Text(),
    "data.valid_chars": COUNT_OR_ZERO,
    "data.train_tokens": COUNT_OR_ZERO,
    "data.size": Integer(1, 2**30 - 1),
    "data.seed": COUNT_OR_ZERO,
    "data.format": Name("lm.data.labelled:FORMATS"),
    "data.columns": TupleOf(Integer(-1000, 1000), 2, 2),
    "data.header": Name("lm.data.labelled:HEADERS"),
    "data.tokenizer": Name("lm.data.labelled:TOKENIZERS"),
    "data.digits": Name("lm.data.labelled:DIGITS"),
    "data.min_count": COUNT,
    "data.valid_share": RATE,
    "data.words": Name("lm.data.labelled:WORDS"),
    "data.max_tokens": COUNT_OR_ZERO_32,
    "data.keep": Name("lm.data.examples:KEPT"),
    "data.padding": Name("lm.data.examples:PADDINGS"),
    "data.examples": Name("lm.tasks.word_updates:EXAMPLES"),
    "data.window": Integer(1, 99),
    "data.buckets": Integer(1, 32),  # each is compiled separately
    "data.batching": Name("lm.data.batches:BATCHINGS"),
    "data.batch_size": COUNT,
    "data.unroll": COUNT,
    "model.cell": Name("lm.cells.table:CELLS"),
    "model.input": Name("lm.model.language_model:CONTEXT"),
    "model.embedding_size": COUNT_OR_ZERO_32,
    "model.embedding_from": Text(),
    "model.embedding_case": Name("lm.data.vectors:CASES"),
    "model.shape_size": COUNT_OR_ZERO_32,
    "model.hidden": TupleOf(COUNT_32, 1, 100),  # each layer is compiled separately
    "model.projection": COUNT_OR_ZERO_32,
    "model.mogrifier_rounds": Integer(0, 100),  # each is compiled separately; 5 to 6 were best (Melis et al. 2020)
    "model.direction": Name("lm.model.sequence_model:DIRECTIONS"),
    "model.pooling": Name("lm.model.sequence_model:POOLINGS"),
    "model.convolution": TupleOf(COUNT_32, 0, 3),
    "model.context": Name("lm.model.encoder_decoder:CONTEXTS"),
    "model.output": Name("lm.model.language_model:OUTPUTS"),
    "model.initial_carry": Name("lm.model.sequence_model:INITIAL_CARRIES"),
    **dict.fromkeys(("init.embedding", "init.input", "init.recurrent", "init.output"), Initialiser("matrix")),
    **dict.fromkeys(("init.bias", "init.vector", "init.gain", "init.ring", "init.phase"), Initialiser("vector")),
    "init.output_bias": Initialiser("vector"),
    **dict.fromkeys(("keep_prob.input", "keep_prob.between", "keep_prob.output"), KEEP_PROBABILITY),
    **dict.fromkeys(("keep_prob.recurrent", "keep_prob.carried", "keep_prob.hidden"), KEEP_PROBABILITY),
    **dict.fromkeys(("keep_prob.embedding", "keep_prob.weight_drop"), KEEP_PROBABILITY),
    "dropout.mask": Name("lm.model.dropout:MASKS"),
    **dict.fromkeys(("zoneout.memory", "zoneout.output"), RATE),
    **dict.fromkeys(("penalty.activation", "penalty.temporal_activation", "penalty.l2"), POSITIVE_OR_ZERO),
    "loss.weighting": Name("lm.model.losses:WEIGHTINGS"),
    "loss.gradient": Name("lm.model.losses:GRADIENTS"),
    "loss.teacher_forcing": SHARE,
    "loss.forcing_schedule": Name("lm.tasks.forcing:SCHEDULES"),
    "loss.forcing_steps": COUNT_OR_ZERO_32,
    "loss.label_smoothing": RATE,
    "optim.name": Name("lm.training.optim:OPTIMISERS"),
    "optim.learning_rate": POSITIVE,
    "optim.schedule": Name("lm.training.optim:SCHEDULES"),
    "optim.decay_rate": POSITIVE,
    "optim.decay_steps": COUNT_32,
    "optim.hold_epochs": COUNT_OR_ZERO_32,
    "optim.patience": COUNT_32,
    "optim.final_fraction": SHARE,
    "optim.warmup_steps": COUNT_OR_ZERO_32,
    "optim.clipping": Name("lm.training.optim:CLIPPING"),
    "optim.clip": POSITIVE,
    "optim.momentum": RATE,
    "optim.beta1": RATE,
    "optim.beta2": RATE,
    "optim.epsilon": POSITIVE,
    "optim.weight_decay": POSITIVE_OR_ZERO,
    "optim.frozen": TupleOf(Text()),
    "optim.unit_rows": TupleOf(Text()),
    "optim.average_from": COUNT_OR_ZERO_32,
    "optim.nonmonotone_checks": COUNT_32,
    "train.steps": COUNT_OR_ZERO,
    "train.epochs": COUNT_OR_ZERO,
    "train.report_every": COUNT,
    "train.evaluate_every": COUNT_OR_ZERO,
    "train.sample_every": COUNT_OR_ZERO,
    "train.patience": COUNT_OR_ZERO,
    "train.threads": Integer(0, 1024),
    "train.steps_per_dispatch": Integer(1, 100_000),  # a dispatch allocates the metrics of all its steps
    "train.devices": COUNT,
    "evaluation.during": PROTOCOL,
    "evaluation.protocols": TupleOf(PROTOCOL),
    "evaluation.splits": TupleOf(Name("lm.data.text:SPLITS")),
    "evaluation.best_by": Name("lm.training.validation:CRITERIA"),
    "evaluation.predictions": COUNT,
    "evaluation.batch_size": COUNT,
    "evaluation.unroll": COUNT,
    "evaluation.temperature": TEMPERATURE,
    "evaluation.cache_window": Integer(1, 100_000),
    "evaluation.cache_theta": POSITIVE_OR_ZERO,
    "evaluation.cache_lambda": RATE,
    "evaluation.dynamic_segment": COUNT_32,
    "evaluation.dynamic_rate": POSITIVE_OR_ZERO,
    "evaluation.dynamic_decay": SHARE,
    "evaluation.target_length": COUNT_32,
    "evaluation.beams": Integer(1, 1000),
    "evaluation.length_penalty": POSITIVE_OR_ZERO,
    "sample.number": COUNT,
    "sample.length": COUNT,
    "sample.prompt": Text(),
    "sample.start": Name("lm.scoring.sampling:STARTS"),
    "sample.stop": Text(),
    "sample.suppress": TupleOf(Text()),
    "sample.strategy": Name("lm.scoring.sampling:STRATEGIES"),
    "sample.temperature": TEMPERATURE,
    "sample.top_k": COUNT_OR_ZERO,
    "sample.top_p": KEEP_PROBABILITY,
    "sample.seed": SEED,
    "sample.beams": Integer(1, 1000),
    "sample.length_penalty": POSITIVE_OR_ZERO,
    "checkpoint.every_steps": COUNT,
    "checkpoint.keep": COUNT,
    "checkpoint.best": Name(("none", "keep")),
    "on_nan": Name(("stop", "rollback")),
    "claim.minutes": POSITIVE_OR_ZERO,
    "claim.seeds": COUNT,
    "parameters": COUNT_OR_ZERO,
}

# Rules for sweep configs (configs/sweeps/_definition.py). config.run follows RULES, and experiments/sweeps/space.py
# checks config.space.
SWEEP_RULES: dict[str, Rule] = {
    "kind": Name(("sweep",)),
    "name": Text(),
    "sampler": Name("experiments.sweeps.plan:SAMPLERS"),
    "trials": COUNT_OR_ZERO,
    "seed": COUNT_OR_ZERO,
    "pruner": Name("experiments.sweeps.plan:PRUNERS"),
    "pruner_warmup": COUNT_OR_ZERO,
    "lanes": COUNT_OR_ZERO,
    "heartbeat_seconds": COUNT,
    "retries": COUNT_OR_ZERO,
}

# Rules for configs/benchmark.py. config.lm follows RULES.
BENCHMARK_RULES: dict[str, Rule] = {
    "kind": Name(("benchmark",)),
    "workloads": TupleOf(Text()),  # a text may hold several names, separated by commas
    "peers": TupleOf(Text()),
    "rounds": COUNT,
    "seconds_per_measurement": POSITIVE,
    "threads": COUNT_OR_ZERO,
}

# Rules for one entry of config.targets.
TARGET_RULES: dict[str, Rule] = {
    **dict.fromkeys(("split", "protocol", "metric", "where", "at", "kind"), Text()),
    **dict.fromkeys(("value", "tolerance"), Number(0)),
}


def check_targets(config: ml_collections.ConfigDict) -> None:
    """Raises UserError unless every entry of config.targets has the form of configs.base.target or aim."""
    for name, target in config.targets.items():
        if not isinstance(target, Mapping | ml_collections.ConfigDict) or set(target) != TARGET_RULES.keys():
            raise UserError(f"config.targets.{name} must be made by configs.base.target or aim, not {in_short(target)}")
        for key, rule in TARGET_RULES.items():
            rule.check(f"config.targets.{name}.{key}", target[key])


def check_values(config: ml_collections.ConfigDict, rules: Mapping[str, Rule] = RULES) -> None:
    """Raises UserError naming the first key that is missing or whose value breaks its rule."""
    for key, rule in rules.items():
        try:
            value = operator.attrgetter(key)(config)
        except AttributeError as error:
            raise UserError(f"config.{key} is missing: configs/base.py has every key") from error
        rule.check(f"config.{key}", value)
    if rules is RULES and "targets" in config:
        check_targets(config)
