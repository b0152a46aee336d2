"""Optimisers as optax chains, and learning-rate schedules.

Rates and clip thresholds are traced scalars (`Hyper`), so changing them does not recompile. The chain excludes the
learning rate: a step is `parameters - rate * update`, with rate = `learning_rate(...)`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree
from ml_collections import ConfigDict, FrozenConfigDict

Array = jax.Array


class Hyper(NamedTuple):
    """Hyperparameters that a sweep varies without recompiling, each a float32 array [].

    The dictionaries hold active terms only: a term that is off is absent from the compiled step.
    """

    learning_rate: Array
    clip: Array
    weight_decay: Array
    keep: dict[str, Array]  # keep probability of each dropout site: lm/model/dropout.py
    zoneout: dict[str, Array]  # rate of zoneout by site: memory, output
    objective: dict[str, Array]  # factors of config.penalty and label_smoothing


def hyper_of(config: ConfigDict) -> Hyper:
    """The traced scalars of a config."""

    def scalars(values, off):
        return {name: scalar(x) for name, x in sorted(values.items()) if x != off}

    optim = config.optim
    return Hyper(
        learning_rate=scalar(optim.learning_rate),
        clip=scalar(optim.clip),
        weight_decay=scalar(optim.weight_decay),
        keep=scalars(config.keep_prob, off=1),
        zoneout=scalars(config.zoneout, off=0),
        objective=scalars({**config.penalty, "label_smoothing": config.loss.label_smoothing}, off=0),
    )


def scalar(x: float) -> Array:
    return jnp.asarray(x, jnp.float32)


def static_part(optim: ConfigDict) -> FrozenConfigDict:
    """Returns `config.optim` with 1 in place of each number that is not compiled into the step.

    These numbers are traced (`Hyper`) or read only between dispatches (lm/training/validation.py). Configs that differ
    only in them share one compiled program. A weight decay of 0 stays 0, because its program has no weight decay.
    """
    host = {"patience": 1, "nonmonotone_checks": 1} | ({"decay_rate": 1.0} if optim.schedule == "plateau" else {})
    traced = {"learning_rate": 1.0, "clip": 1.0, "weight_decay": float(optim.weight_decay > 0)}
    return FrozenConfigDict({**optim, **host, **traced})


CLIPPING = {
    "none": lambda clip: optax.identity(),
    "global_norm": optax.clip_by_global_norm,
    "value": optax.clip,
    "step_norm": lambda clip: optax.identity(),  # see `clip_step`
}


class Optimiser(NamedTuple):
    """purpose: the update in a few words; make: config.optim -> gradient transformation"""

    purpose: str
    make: Callable[[ConfigDict], optax.GradientTransformation]


def _sgd(optim):
    return optax.identity()


def _adam(optim):
    return optax.scale_by_adam(b1=optim.beta1, b2=optim.beta2, eps=optim.epsilon)


OPTIMISERS = {
    "sgd": Optimiser("the gradient g", _sgd),
    "momentum": Optimiser("g + config.optim.momentum x the last update", lambda optim: optax.trace(optim.momentum)),
    "nesterov": Optimiser("as momentum, with look-ahead", lambda optim: optax.trace(optim.momentum, nesterov=True)),
    "rmsprop": Optimiser(
        "g / (sqrt(mean of g^2) + epsilon), mean with decay beta2 (Tieleman & Hinton 2012; as in torch, char-rnn)",
        lambda optim: optax.scale_by_rms(decay=optim.beta2, eps=optim.epsilon, eps_in_sqrt=False),
    ),
    "adam": Optimiser("mean of g / (sqrt(mean of g^2) + epsilon), bias-corrected (Kingma & Ba 2015)", _adam),
    "adamw": Optimiser("as adam, with decoupled weight decay (Loshchilov & Hutter 2019)", _adam),
    "asgd": Optimiser("as sgd; scores the mean parameters from step average_from on (Polyak & Juditsky 1992)", _sgd),
    "nt_asgd": Optimiser("as asgd; averaging starts when validation stops improving (Merity et al. 2017)", _sgd),
}


def transformation(optim: ConfigDict, hyper: Hyper) -> optax.GradientTransformation:
    """Builds the optax chain: clipping, then the optimiser. Cheap, also inside a trace.

    Weight decay adds weight_decay * parameters after clipping: for `adamw` to the update (Loshchilov & Hutter 2019),
    otherwise to the gradient (an L2 penalty, as in torch's optimisers).
    """
    chain = [CLIPPING[optim.clipping](hyper.clip), OPTIMISERS[optim.name].make(optim)]
    if optim.weight_decay > 0:
        chain.insert(2 if optim.name == "adamw" else 1, optax.add_decayed_weights(hyper.weight_decay))
    return optax.chain(*chain)


def clip_step(optim: ConfigDict, hyper: Hyper, rate: Array, updates: PyTree) -> PyTree:
    """Scales `updates` so that the norm of rate x updates is at most `clip`, if clipping is step_norm. It bounds what
    Adam makes of a gradient, not the gradient (as in Blocks, of the University of Montreal's group)."""
    if optim.clipping != "step_norm":
        return updates
    return optax.clip_by_global_norm(hyper.clip / rate).update(updates, optax.EmptyState())[0]


def unit_rows(table: Array) -> Array:
    """The table with each row rescaled to length 1."""
    return table / jnp.linalg.norm(table, axis=1, keepdims=True)


# --- Averaging: asgd (Polyak & Juditsky 1992) and its non-monotonically triggered form (Merity et al. 2017) -------

AVERAGED = ("asgd", "nt_asgd")


class Average(NamedTuple):
    """Mean of the parameters after `count` successive steps; a count of 0 means that averaging has not begun."""

    count: Array  # int32 scalar
    parameters: dict


def no_average(parameters: dict) -> Average:
    return Average(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, parameters))


def begin_average(parameters: dict) -> Average:
    """Starts an average at a copy of these parameters, so that both can be donated."""
    return Average(jnp.ones((), jnp.int32), jax.tree.map(jnp.copy, parameters))


def extend_average(optim: ConfigDict, average: Average, parameters: dict, step: Array) -> Average:
    """Adds the parameters after step `step` (from 0) to the average, if averaging has begun. For asgd it begins with
    the parameters after step `average_from`, for nt_asgd with `begin_average`."""
    begun = (step >= optim.average_from) if optim.name == "asgd" else (average.count > 0)
    count = average.count + begun.astype(jnp.int32)
    weight = jnp.where(begun, 1.0 / jnp.maximum(count, 1), 0.0)
    mean = jax.tree.map(lambda mean, new: mean + weight * (new - mean), average.parameters, parameters)
    return Average(count, mean)


# --- Schedules: factor on the base rate at a step (from 0) -------------------------------------------------------


def _constant(optim, step, epoch, total_steps):
    return jnp.ones((), jnp.float32)


def _staircase(optim, step, epoch, total_steps):
    """decay_rate ^ floor(step / decay_steps)."""
    return optim.decay_rate ** jnp.floor(step / optim.decay_steps)


def _epochs(optim, step, epoch, total_steps):
    """decay_rate ^ max(epoch - hold_epochs, 0), epochs from 0."""
    return optim.decay_rate ** jnp.maximum(epoch - optim.hold_epochs, 0).astype(jnp.float32)


def _cosine(optim, step, epoch, total_steps):
    """Half a cosine from 1 at step 0 to final_fraction at step total_steps, one after the last step."""
    progress = jnp.clip(step / max(total_steps, 1), 0.0, 1.0)
    return optim.final_fraction + (1 - optim.final_fraction) * 0.5 * (1 + jnp.cos(jnp.pi * progress))


SCHEDULES = {
    "constant": _constant,
    "staircase": _staircase,
    "epochs": _epochs,
    "cosine": _cosine,
    "plateau": _constant,  # decays after validation, through argument `factor` of learning_rate
}


def learning_rate(
    optim: ConfigDict, base: Array, step: Array, steps_per_epoch: int, total_steps: int, factor: Array | None = None
) -> Array:
    """The rate at `step` (from 0): base x schedule x factor (of plateau and rollbacks) x linear warm-up."""
    rate = base * SCHEDULES[optim.schedule](optim, step, step // steps_per_epoch, total_steps)
    if factor is not None:
        rate = rate * factor
    if optim.warmup_steps:
        rate = rate * jnp.minimum(1.0, (step + 1) / optim.warmup_steps)
    return rate
