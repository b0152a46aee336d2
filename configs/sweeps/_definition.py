"""Every key of a sweep's config, with its type and default."""

import ml_collections


def sweep(name: str, run: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A sweep of `run`, a training config, whose keys the space varies; --config.run.KEY=VALUE changes the others."""
    config = ml_collections.ConfigDict()
    config.kind = "sweep"  # what --experiment can do with it
    config.name = name
    config.run = run
    # (key of run, how it is drawn, ...), in the order of the grid, the last one fastest:
    # uniform low high, log_uniform low high, integer low high, choice a b c ...
    config.space = ()
    config.sampler = "random"  # grid, random, quasi_random, tpe: experiments/sweeps/plan.py
    config.trials = 0  # of a grid 0: all
    config.seed = 0  # of the sampler
    config.pruner = "none"  # none, median, asha
    config.pruner_warmup = 1  # validation checks before a trial can be pruned
    config.lanes = 0  # trials of one shape trained as one program: at most so many; 0: where it pays; 1: never
    config.heartbeat_seconds = 60  # with --storage: a trial is taken over when it has been silent for twice as long
    config.retries = 2  # of such a trial
    return config
