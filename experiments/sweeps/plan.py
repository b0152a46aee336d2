"""The plan of a sweep: how many trials it has, the parameters of each, and when a trial is pruned.

Except with tpe, the parameters of trial n depend only on the sampler's seed and on n. So a sweep that was killed, or
that several machines share, runs the same trials as an uninterrupted one. With tpe they also depend on the earlier
results.
"""

import math
import zlib
from typing import Any

import numpy as np
import optuna
from ml_collections import ConfigDict

from experiments.sweeps.space import Axis, as_parameter
from experiments.sweeps.trials import place_of

PLANNED = ("grid", "random", "quasi_random")  # samplers that ignore results
SAMPLERS = (*PLANNED, "tpe")
PRUNERS = ("none", "median", "asha")


def number_of_trials(config: ConfigDict, axes: list[Axis]) -> int:
    if config.sampler != "grid":
        return config.trials
    points = math.prod(len(axis.values) for axis in axes)
    return min(config.trials or points, points)


def plan_trial(config: ConfigDict, axes: list[Axis], number: int) -> dict[str, Any]:
    """{axis key: parameter} of trial `number` for a sampler in PLANNED."""
    if config.sampler == "grid":
        shape = [len(axis.values) for axis in axes]
        # A surplus trial (trials.py) lies beyond the grid. It gets any point, because it is dropped.
        picks = np.unravel_index(number % math.prod(shape), shape)
        return {axis.key: as_parameter(axis.values[pick]) for axis, pick in zip(axes, picks, strict=True)}
    if config.sampler == "quasi_random":
        from scipy.stats import qmc

        sequence = qmc.Sobol(len(axes), scramble=True, rng=np.random.default_rng(config.seed))
        if number:
            sequence.fast_forward(number)
        shares = sequence.random(1)[0]
    else:
        shares = np.random.default_rng([config.seed, number]).random(len(axes))
    return {axis.key: as_parameter(axis.quantile(float(share))) for axis, share in zip(axes, shares, strict=True)}


class PlannedSampler(optuna.samplers.RandomSampler):
    """Passes the parameters of `plan_trial` to Optuna, which asks a RandomSampler for one parameter at a time."""

    def __init__(self, config: ConfigDict, axes: list[Axis]):
        super().__init__()
        self.config, self.axes = config, axes

    def sample_independent(self, study, trial, param_name, param_distribution):
        return plan_trial(self.config, self.axes, place_of(study, trial))[param_name]


class ReseededTpe(optuna.samplers.BaseSampler):
    """Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), seeded by each trial's place in the plan."""

    def __init__(self, seed: int):
        self.seed = seed

    def _tpe(self, study, trial, name: str = "") -> optuna.samplers.TPESampler:
        seed = zlib.crc32(f"{self.seed} {place_of(study, trial)} {name}".encode())
        return optuna.samplers.TPESampler(seed=seed, multivariate=True)

    def infer_relative_search_space(self, study, trial):
        return self._tpe(study, trial).infer_relative_search_space(study, trial)

    def sample_relative(self, study, trial, search_space):
        return self._tpe(study, trial).sample_relative(study, trial, search_space)

    def sample_independent(self, study, trial, param_name, param_distribution):
        tpe = self._tpe(study, trial, param_name)
        return tpe.sample_independent(study, trial, param_name, param_distribution)


def make_sampler(config: ConfigDict, axes: list[Axis]) -> optuna.samplers.BaseSampler:
    return PlannedSampler(config, axes) if config.sampler in PLANNED else ReseededTpe(config.seed)


def make_pruner(config: ConfigDict) -> optuna.pruners.BasePruner:
    """median: once four trials are complete, prunes one whose best value so far is worse than their median at this
    check; asha: successive halving (Li et al. 2018). Both count validation checks from 1."""
    if config.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=config.pruner_warmup)
    if config.pruner == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=max(1, config.pruner_warmup))
    return optuna.pruners.NopPruner()
