"""Every key of a sweep config, with its type and default."""

import ml_collections


def sweep(name: str, run: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A sweep over keys of the training config `run`; --config.run.KEY=VALUE overrides a key that is not swept."""
    config = ml_collections.ConfigDict()
    config.kind = "sweep"  # the kind of command that reads this config
    config.name = name
    config.run = run
    # One tuple (key of run, distribution, *arguments) per swept key; in a grid the last key varies fastest.
    # Distributions: uniform low high, log_uniform low high, integer low high, choice a b c ...
    config.space = ()
    config.sampler = "random"  # grid, random, quasi_random, tpe: experiments/sweeps/plan.py
    config.trials = 0  # number of trials; 0 with sampler=grid: every point
    config.seed = 0  # seed of the sampler
    config.pruner = "none"  # none, median, asha
    config.pruner_warmup = 1  # validation checks before a trial can be pruned
    config.lanes = 0  # maximum number of trials that train as one program; 0: automatic; 1: no lanes
    config.heartbeat_seconds = 60  # with --storage: a trial is taken over after twice this time without a heartbeat
    config.retries = 2  # how often a trial may be taken over
    return config
