"""The search space of a sweep: the keys of a run that vary, and their values."""

import math
from typing import Any, NamedTuple

import optuna
from ml_collections import ConfigDict

from configs.rules import check_values
from lm.errors import UserError

# Keys of config.data that change neither the validation text nor its tokens. Other keys of data and evaluation do.
SAME_TEXT = ("batch_size", "unroll", "batching", "train_tokens", "buckets", "examples", "window", "padding")
KINDS = ("uniform", "log_uniform", "integer", "choice")


class Axis(NamedTuple):
    """One line of config.space. key: a dotted key of the run, or several joined by + that get the same value."""

    key: str
    kind: str
    values: tuple

    @property
    def keys(self) -> list[str]:
        return self.key.split("+")

    @property
    def distribution(self) -> optuna.distributions.BaseDistribution:
        if self.kind == "choice":
            return optuna.distributions.CategoricalDistribution([as_parameter(value) for value in self.values])
        low, high = self.values
        if self.kind == "integer":
            return optuna.distributions.IntDistribution(low, high)
        return optuna.distributions.FloatDistribution(low, high, log=self.kind == "log_uniform")

    def value_of(self, parameter: Any) -> Any:
        """Converts a study's parameter to the value of the run's keys."""
        known = {as_parameter(value): value for value in self.values if isinstance(value, tuple)}
        return known.get(parameter, parameter)

    def quantile(self, share: float) -> Any:
        """The value below which `share` (0 to 1) of the distribution lies."""
        if self.kind == "choice":
            return self.values[min(int(share * len(self.values)), len(self.values) - 1)]
        low, high = self.values
        if self.kind == "integer":
            return min(low + int(share * (high - low + 1)), high)
        if self.kind == "uniform":
            return low + share * (high - low)
        return min(max(math.exp(math.log(low) + share * math.log(high / low)), low), high)


def as_parameter(value: Any) -> Any:
    """Converts a value to a study's parameter. Databases store only numbers and text, so a tuple becomes text."""
    return repr(value) if isinstance(value, tuple) else value


def make_space(config: ConfigDict) -> list[Axis]:
    """The axes of config.space. Raises UserError naming the line that is wrong."""
    if not config.space:
        raise UserError("config.space is empty: name at least one key of the run and its values")
    for line in config.space:
        if not isinstance(line, tuple) or len(line) < 3 or line[1] not in KINDS:
            raise UserError(f"config.space: {line} must be (key, one of {', '.join(KINDS)}, value, value, ...)")
    axes = [Axis(line[0], line[1], tuple(line[2:])) for line in config.space]
    for axis in axes:
        if axis.kind != "choice":
            _check_range(axis, config.sampler)
        for value in axis.values:
            check_values(set_parameters(config.run, [axis], {axis.key: as_parameter(value)}))
    keys = [key for axis in axes for key in axis.keys]
    if repeated := [key for key in keys if keys.count(key) > 1]:
        raise UserError(f"config.space: {repeated[0]} appears twice")
    return axes


def incomparable(axes: list[Axis]) -> list[str]:
    """The keys that change the validation text, its tokens or its protocol, so that values do not compare."""
    keys = [key for axis in axes for key in axis.keys if key.startswith(("data.", "evaluation."))]
    return [key for key in keys if key.removeprefix("data.") not in SAME_TEXT]


def _check_range(axis: Axis, sampler: str):
    """Raises UserError for bounds that are not two ascending numbers, and for a range in a grid."""
    start = f"config.space: {axis.key}:"
    if len(axis.values) != 2 or not all(type(value) in (int, float) for value in axis.values):
        raise UserError(f"{start} {axis.kind} needs two numbers, not {axis.values}")
    low, high = axis.values
    if low >= high:
        raise UserError(f"{start} {axis.kind} needs low < high, not {axis.values}")
    if axis.kind == "log_uniform" and low <= 0:
        raise UserError(f"{start} log_uniform needs positive numbers, not {axis.values}")
    if axis.kind == "integer" and not all(type(value) is int for value in axis.values):
        raise UserError(f"{start} integer needs whole numbers, not {axis.values}")
    if sampler == "grid":
        raise UserError(f"{start} a grid needs choices, not {axis.kind}")


def set_parameters(run: ConfigDict, axes: list[Axis], parameters: dict[str, Any]) -> ConfigDict:
    """A copy of the run with the parameters {axis key: parameter}. Raises UserError for a wrong key or type."""
    config = run.copy_and_resolve_references()
    for axis in axes:
        value = axis.value_of(parameters[axis.key])
        for key in axis.keys:
            try:
                config.update_from_flattened_dict({key: value})
            except (KeyError, AttributeError) as error:
                raise UserError(f"config.space: the run has no key {key}") from error
            except (TypeError, ValueError) as error:
                raise UserError(f"config.space: {key} cannot be {value!r}") from error
    return config


def trial_config(sweep: ConfigDict, axes: list[Axis], parameters: dict[str, Any]) -> ConfigDict:
    """The config of a trial's run, which never reads the test split."""
    config = set_parameters(sweep.run, axes, parameters)
    config.evaluation.splits = ("valid",)
    return config
