"""Every key of a sweep config, with its type and default."""

import ml_collections


def sweep(name: str, run: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A sweep over keys of the training config `run`; --config.run.KEY=VALUE changes any other key."""
    config = ml_collections.ConfigDict()
    config.kind = "sweep"  # the kind of command that reads this config
    config.name = name
    config.run = run
    # (key of run, distribution, its arguments), in the order of the grid, the last key fastest. Distributions:
    # uniform low high, log_uniform low high, integer low high, choice a b c ...
    config.space = ()
    config.sampler = "random"  # grid, random, quasi_random, tpe: experiments/sweeps/plan.py
    config.trials = 0  # 0 with a grid: all
    config.seed = 0  # of the sampler
    config.pruner = "none"  # none, median, asha
    config.pruner_warmup = 1  # validation checks before a trial can be pruned
    config.lanes = 0  # most trials of one shape trained as one program; 0: automatic; 1: never together
    config.heartbeat_seconds = 60  # with --storage: another worker takes over a trial that is silent for twice as long
    config.retries = 2  # how often a trial may be taken over
    return config
