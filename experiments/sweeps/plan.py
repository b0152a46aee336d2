"""What a sweep tries: its space, its samplers and its pruners.

The parameters of trial n depend on the sampler's seed and on n alone (of tpe: on the earlier trials, too). So a sweep
that is killed and goes on, or that several machines share, tries what it would have tried undisturbed.
"""

import itertools
import math
import zlib
from typing import NamedTuple

import ml_collections
import numpy as np
import optuna

from lm.errors import UserError, check_name

PLANNED = ("grid", "random", "quasi_random")  # samplers that do not look at results
SAMPLERS = (*PLANNED, "tpe")
PRUNERS = ("none", "median", "asha")
KINDS = ("uniform", "log_uniform", "integer", "choice")


class Axis(NamedTuple):
    """One line of the space. key: a dotted key of the run, or several joined by + that get the same value."""

    key: str
    kind: str
    values: tuple

    @property
    def keys(self) -> list[str]:
        return self.key.split("+")

    @property
    def distribution(self) -> optuna.distributions.BaseDistribution:
        if self.kind == "choice":
            return optuna.distributions.CategoricalDistribution(self.values)
        low, high = self.values
        if self.kind == "integer":
            return optuna.distributions.IntDistribution(low, high)
        return optuna.distributions.FloatDistribution(low, high, log=self.kind == "log_uniform")

    def at(self, share: float):
        """The value below which `share` (0 to 1) of the distribution lies."""
        if self.kind == "choice":
            return self.values[min(int(share * len(self.values)), len(self.values) - 1)]
        low, high = self.values
        if self.kind == "integer":
            return min(low + int(share * (high - low + 1)), high)
        if self.kind == "uniform":
            return low + share * (high - low)
        return min(max(math.exp(math.log(low) + share * math.log(high / low)), low), high)


def make_space(config: ml_collections.ConfigDict) -> list[Axis]:
    """The axes of config.space. Raises UserError naming the line that is wrong."""
    axes = []
    if not config.space:
        raise UserError("config.space is empty: name at least one key of the run and what it may be")
    for line in config.space:
        if len(line) < 3 or line[1] not in KINDS:
            raise UserError(f"config.space: {line} must be (key, one of {', '.join(KINDS)}, value, value, ...)")
        axis = Axis(line[0], line[1], tuple(line[2:]))
        _check_axis(axis, config)
        axes.append(axis)
    keys = [key for axis in axes for key in axis.keys]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise UserError(f"config.space: {twice[0]} is there twice")
    return axes


def _check_axis(axis: Axis, config: ml_collections.ConfigDict):
    if axis.kind != "choice":
        if len(axis.values) != 2 or not all(type(value) in (int, float) for value in axis.values):
            raise UserError(f"config.space: {axis.key}: {axis.kind} needs two numbers, not {axis.values}")
        low, high = axis.values
        if not low < high or (axis.kind == "log_uniform" and low <= 0):
            raise UserError(f"config.space: {axis.key}: {axis.kind} needs low < high, both positive where it is "
                            f"logarithmic, not {axis.values}")  # fmt: skip
        if axis.kind == "integer" and not all(type(value) is int for value in axis.values):
            raise UserError(f"config.space: {axis.key}: integer needs whole numbers, not {axis.values}")
        if config.sampler == "grid":
            raise UserError(f"config.space: {axis.key}: a grid needs choices, not {axis.kind}")
    for value in (axis.values[0], axis.values[-1]):
        changed(config.run, [axis], {axis.key: value})


def changed(run: ml_collections.ConfigDict, axes: list[Axis], parameters: dict) -> ml_collections.ConfigDict:
    """The run with the parameters of a trial, {axis key: value}. Raises UserError for a key or type that is wrong."""
    config = run.copy_and_resolve_references()
    for axis in axes:
        for key in axis.keys:
            try:
                config.update_from_flattened_dict({key: parameters[axis.key]})
            except (KeyError, AttributeError) as error:
                raise UserError(f"config.space: the run has no key {key}") from error
            except (TypeError, ValueError) as error:
                raise UserError(f"config.space: {key}={parameters[axis.key]!r} is no value of that key") from error
    return config


def number_of_trials(config: ml_collections.ConfigDict, axes: list[Axis]) -> int:
    """Raises UserError for settings of the sampler or the pruner that cannot be."""
    for key, known in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        check_name(config[key], known, f"config.{key}")
    for key, least in (("heartbeat_seconds", 1), ("retries", 0), ("lanes", 0), ("pruner_warmup", 0), ("trials", 0)):
        if config[key] < least:
            raise UserError(f"config.{key}={config[key]}: must be at least {least}")
    if config.sampler == "grid":
        points = math.prod(len(axis.values) for axis in axes)
        return min(config.trials or points, points)
    if not config.trials:
        raise UserError("config.trials must be positive for every sampler but grid")
    return config.trials


def planned(config: ml_collections.ConfigDict, axes: list[Axis], number: int) -> dict:
    """{axis key: value} of trial `number` of a sampler in PLANNED."""
    if config.sampler == "grid":
        points = itertools.product(*(axis.values for axis in axes))
        number %= math.prod(len(axis.values) for axis in axes)  # one too many is asked for and thrown away
        point = next(itertools.islice(points, number, None))
        return {axis.key: value for axis, value in zip(axes, point, strict=True)}
    if config.sampler == "quasi_random":
        shares = _sobol(config.seed, len(axes), number)
    else:
        shares = np.random.default_rng([config.seed, number]).random(len(axes))
    return {axis.key: axis.at(float(share)) for axis, share in zip(axes, shares, strict=True)}


def _sobol(seed: int, dimensions: int, number: int) -> np.ndarray:
    """Point `number` of a scrambled Sobol sequence in [0, 1)^dimensions."""
    from scipy.stats import qmc

    sequence = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed))
    if number:
        sequence.fast_forward(number)
    return sequence.random(1)[0]


def origin(trial) -> int:
    """The number of the trial that this one repeats, or its own."""
    return trial.system_attrs.get("failed_trial", trial.number)


def originals(study) -> list[optuna.trial.FrozenTrial]:
    """Trials that repeat no other and are not too many, in order of their numbers, which have gaps."""
    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if origin(trial) == trial.number and "surplus" not in trial.user_attrs]


def place_of(study, trial) -> int:
    """Which trial of the plan this is."""
    return sum(each.number < origin(trial) for each in originals(study))


class PlannedSampler(optuna.samplers.BaseSampler):
    """Optuna's interface to `planned`."""

    def __init__(self, config: ml_collections.ConfigDict, axes: list[Axis]):
        self.config, self.axes = config, axes

    def infer_relative_search_space(self, study, trial):
        return {axis.key: axis.distribution for axis in self.axes}

    def sample_relative(self, study, trial, search_space):
        return planned(self.config, self.axes, place_of(study, trial))

    def sample_independent(self, study, trial, name, distribution):
        return planned(self.config, self.axes, place_of(study, trial))[name]


class ReseededTpe(optuna.samplers.BaseSampler):
    """Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), seeded anew for every trial by its place."""

    def __init__(self, seed: int):
        self.seed = seed

    def _tpe(self, study, trial, name: str = "") -> optuna.samplers.TPESampler:
        seed = zlib.crc32(f"{self.seed} {place_of(study, trial)} {name}".encode())
        return optuna.samplers.TPESampler(seed=seed, multivariate=True)

    def infer_relative_search_space(self, study, trial):
        return self._tpe(study, trial).infer_relative_search_space(study, trial)

    def sample_relative(self, study, trial, search_space):
        return self._tpe(study, trial).sample_relative(study, trial, search_space)

    def sample_independent(self, study, trial, name, distribution):
        return self._tpe(study, trial, name).sample_independent(study, trial, name, distribution)


def make_sampler(config: ml_collections.ConfigDict, axes: list[Axis]) -> optuna.samplers.BaseSampler:
    return PlannedSampler(config, axes) if config.sampler in PLANNED else ReseededTpe(config.seed)


def make_pruner(config: ml_collections.ConfigDict) -> optuna.pruners.BasePruner:
    """median: worse than the median of the earlier trials at the same check; asha: successive halving (Li et al. 2018)

    Both count validation checks from 1.
    """
    if config.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=config.pruner_warmup)
    if config.pruner == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=max(1, config.pruner_warmup))
    return optuna.pruners.NopPruner()
