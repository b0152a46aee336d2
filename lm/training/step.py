"""Training on the device: the state, the pure step, and many steps per dispatch (its loop: lm/training/loop.py).

The state holds everything that decides the next step; the token array stays on the device and windows are cut from
it inside jit; nothing returns to the host but one small array of metrics per dispatch.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax

from lm.data.batches import Streams, advance, make_streams, starts_epoch, window
from lm.data.corpora import Corpus
from lm.errors import UserError, check_name
from lm.model.dropout import Noise
from lm.model.language_model import LanguageModel, init_parameters, make_model
from lm.model.losses import GRADIENTS, target_weights
from lm.scoring.protocols import check_evaluation
from lm.scoring.sampling import check_sample
from lm.training import devices, optim, validation
from lm.training.optim import Average, Hyper

Array = jax.Array

# A dispatch has room for what each of its steps measures; longer ones gain nothing.
MOST_STEPS_PER_DISPATCH = 100_000


class TrainState(NamedTuple):
    """Everything that decides the next step. Steps count from 0; `step` steps have been made."""

    step: Array  # int32 scalar
    cursor: Array  # int32 scalar: lm/data/batches.py
    parameters: dict
    optimiser: tuple  # optax state
    carry: tuple  # one per layer, fields [B, H]
    key: Array  # PRNG key; the noise of step s comes from fold_in(key, s)
    rate_factor: Array | None = None  # what plateau's decays, or rollbacks, have made of the learning rate
    average: Average | None = None  # asgd, nt_asgd


class StepMetrics(NamedTuple):
    """What a step measures; arrays [K] over the K steps of a dispatch."""

    loss: Array  # mean nats over the targets that the objective weighs
    gradient_norm: Array  # global norm before clipping
    learning_rate: Array


class Experiment(NamedTuple):
    """A config made concrete: hashable and static under jit."""

    config: ml_collections.FrozenConfigDict
    model: LanguageModel
    streams: Streams
    total_steps: int


def make_experiment(config: ml_collections.ConfigDict, corpus: Corpus) -> Experiment:
    """Checks the config against the corpus and fixes model, streams and length. Raises UserError."""
    model = make_model(config, corpus.vocabulary.size)
    data = config.data
    streams = make_streams(data.batching, len(corpus.splits["train"]), data.batch_size, data.unroll, model.context)
    train = config.train
    if (train.steps > 0) == (train.epochs > 0):
        raise UserError("exactly one of config.train.steps and config.train.epochs must be positive, "
                        f"not steps={train.steps} and epochs={train.epochs}")  # fmt: skip
    at_least_one = {
        "train.report_every": train.report_every,
        "train.steps_per_dispatch": train.steps_per_dispatch,
        "checkpoint.every_steps": config.checkpoint.every_steps,
        "checkpoint.keep": config.checkpoint.keep,
    }
    for key, value in at_least_one.items():
        if value < 1:
            raise UserError(f"config.{key} must be at least 1, not {value}")
    if train.steps_per_dispatch > MOST_STEPS_PER_DISPATCH:
        raise UserError(f"config.train.steps_per_dispatch must be at most {MOST_STEPS_PER_DISPATCH}, not "
                        f"{train.steps_per_dispatch}")  # fmt: skip
    for key, seed in (("seed", config.seed), ("sample.seed", config.sample.seed)):
        if not 0 <= seed < 2**32:  # JAX would take the lowest 32 bits of others, which are another seed's
            raise UserError(f"config.{key} must be between 0 and {2**32 - 1}, not {seed}")
    devices.check(train.devices, data.batch_size)
    optim.hyper_of(config)
    check_sample(config.sample, corpus.vocabulary, model.context)
    check_evaluation(config.evaluation, model, corpus.splits)
    validation.check(config, corpus.splits)
    check_name(config.on_nan, ("stop", "rollback"), "config.on_nan")
    check_name(config.loss.gradient, GRADIENTS, "config.loss.gradient")
    target_weights(config.loss.weighting, 1, 1)
    if config.penalty.temporal_activation and streams.unroll <= model.context:
        raise UserError("config.penalty.temporal_activation needs two time steps in a window: config.data.unroll "
                        f"of at least {model.context + 1}, not {streams.unroll}")  # fmt: skip
    total_steps = train.steps or train.epochs * streams.windows_per_epoch
    if total_steps >= 2**31:
        raise UserError(f"config.train asks for {total_steps} steps, more than 32 bits count: lower config.train.steps "
                        "or config.train.epochs")  # fmt: skip
    return Experiment(ml_collections.FrozenConfigDict(config), model, streams, total_steps)


@functools.lru_cache(maxsize=64)
def compiled_part(experiment: Experiment) -> Experiment:
    """The experiment reduced to what its compiled step depends on: numbers that `Hyper` traces, the seed, names and
    everything between dispatches are left out, so that experiments which differ only there are one program.
    """
    config, model, streams, total_steps = experiment
    needed = ml_collections.FrozenConfigDict(
        {
            "dropout": config.dropout,
            "loss": {"weighting": config.loss.weighting, "gradient": config.loss.gradient},
            "optim": optim.static_part(config.optim),
            "train": {"steps_per_dispatch": config.train.steps_per_dispatch, "devices": config.train.devices},
        }
    )
    decays_over_run = config.optim.schedule == "cosine"
    return Experiment(needed, model.for_training(), streams, total_steps if decays_over_run else 0)


def initial_state(experiment: Experiment, hyper: Hyper) -> TrainState:
    """Fresh parameters from `config.seed`, zero optimiser state, initial carry, cursor 0."""
    parameter_key, noise_key = jax.random.split(jax.random.key(experiment.config.seed))
    parameters = init_parameters(experiment.model, parameter_key)
    settings = experiment.config.optim
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        cursor=jnp.zeros((), jnp.int32),
        parameters=parameters,
        optimiser=optim.transformation(settings, hyper).init(parameters),
        carry=experiment.model.initial_carry(experiment.streams.batch_size),
        key=noise_key,
        rate_factor=jnp.ones((), jnp.float32) if has_rate_factor(experiment.config) else None,
        average=optim.no_average(parameters) if settings.name in optim.AVERAGED else None,
    )


def has_rate_factor(config: ml_collections.ConfigDict) -> bool:
    return config.optim.schedule == "plateau" or config.on_nan == "rollback"


def evaluated_parameters(state: TrainState) -> dict:
    """What evaluation and sampling read: the average once it has begun, else the parameters themselves."""
    averaging = state.average is not None and int(state.average.count) > 0
    return state.average.parameters if averaging else state.parameters


# --- The pure step ----------------------------------------------------------------------------------------------


def train_step(experiment: Experiment, state: TrainState, tokens: Array, hyper: Hyper):
    """One window: tokens [N] -> (next state, StepMetrics of scalars)."""
    config, model, streams, total_steps = experiment
    batch = window(streams, tokens, state.cursor)
    fresh = starts_epoch(streams, state.cursor)
    initial = model.initial_carry(streams.batch_size)
    carry = jax.tree.map(lambda start, carried: jnp.where(fresh, start, carried), initial, state.carry)
    weights = target_weights(config.loss.weighting, streams.unroll + 1 - model.context, streams.batch_size)
    noise = None
    if hyper.keep or hyper.zoneout:
        noise = Noise(jax.random.fold_in(state.key, state.step), hyper.keep, hyper.zoneout, config.dropout.mask)
    arguments = (state.parameters, batch, carry, weights, noise, hyper.objective)

    def gradients_of(parameters, *arguments):
        def objective(parameters):
            return model.apply({"params": parameters}, *arguments, config.loss.gradient, method="loss")

        (_, (carry, nats)), gradients = jax.value_and_grad(objective, has_aux=True)(parameters)
        return gradients, carry, nats

    gradients, carry, nats = devices.over_rows(config.train.devices, gradients_of)(*arguments)
    settings, epoch = config.optim, streams.windows_per_epoch
    rate = optim.learning_rate(settings, hyper.learning_rate, state.step, epoch, total_steps, state.rate_factor)
    updates, optimiser = optim.transformation(settings, hyper).update(gradients, state.optimiser, state.parameters)
    parameters = jax.tree.map(lambda parameter, update: parameter - rate * update, state.parameters, updates)
    average = state.average
    if average is not None:
        average = optim.extend_average(settings, average, parameters, state.step)
    weighed = (weights > 0).astype(nats.dtype)
    measured = StepMetrics(jnp.sum(weighed * nats) / jnp.sum(weighed), optax.tree.norm(gradients), rate)
    after = state._replace(
        step=state.step + 1,
        cursor=advance(streams, state.cursor),
        parameters=parameters,
        optimiser=optimiser,
        carry=carry,
        average=average,
    )
    return devices.constrain(config.train.devices, after), measured


def train_steps(experiment: Experiment, state: TrainState, tokens: Array, hyper: Hyper, count: Array):
    """`count` steps (at most config.train.steps_per_dispatch) in one dispatch; the state is donated.

    Returns (state, StepMetrics of arrays [steps_per_dispatch], of which the first `count` are filled). The count is
    traced, so every dispatch of a run is the same compiled program.
    """
    return _train_steps(compiled_part(experiment), state, tokens, hyper, count)


def dispatch(experiment: Experiment, state: TrainState, tokens: Array, hyper: Hyper, count: Array):
    """What `train_steps` compiles, for programs that hold it as a part; experiment is a `compiled_part`."""
    capacity = experiment.config.train.steps_per_dispatch

    def body(index, loop):
        state, log = loop
        state, measured = train_step(experiment, state, tokens, hyper)
        return state, jax.tree.map(lambda row, value: row.at[index].set(value), log, measured)

    log = StepMetrics(*(jnp.zeros(capacity, jnp.float32) for _ in StepMetrics._fields))
    return jax.lax.fori_loop(0, count, body, (state, log))


_train_steps = jax.jit(dispatch, static_argnums=0, donate_argnums=1)


def compile_steps(experiment: Experiment, state: TrainState, tokens: Array, hyper: Hyper):
    """The compiled program of `train_steps`, for arrays or their ShapeDtypeStructs; nothing is run."""
    return _train_steps.lower(compiled_part(experiment), state, tokens, hyper, 1).compile()
