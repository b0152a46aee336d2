"""Training on the device: the pure step, and many steps per dispatch. The loop around it: lm/training/loop.py.

The state holds everything that decides the next step; the token array stays on the device and windows are cut from
it inside jit; only one small array of metrics per dispatch returns to the host.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from lm.data.batches import advance, starts_epoch, window
from lm.model.dropout import Noise
from lm.model.losses import target_weights
from lm.training import devices, optim
from lm.training.optim import Hyper
from lm.training.setup import Program, Setup
from lm.training.state import TrainState

Array = jax.Array


class StepMetrics(NamedTuple):
    """What a step measures; arrays [K] over the K steps of a dispatch."""

    loss: Array  # mean nats over the targets that the objective weighs
    gradient_norm: Array  # global norm before clipping
    learning_rate: Array


def train_step(program: Program, state: TrainState, tokens: Array, hyper: Hyper):
    """One window: tokens [N] -> (next state, StepMetrics of scalars)."""
    config, model, streams, total_steps = program
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
    gradients |= {name: jax.tree.map(jnp.zeros_like, gradients[name]) for name in settings.frozen}
    rate = optim.learning_rate(settings, hyper.learning_rate, state.step, epoch, total_steps, state.rate_factor)
    updates, optimiser = optim.transformation(settings, hyper).update(gradients, state.optimiser, state.parameters)
    parameters = jax.tree.map(lambda parameter, update: parameter - rate * update, state.parameters, updates)
    parameters |= {name: state.parameters[name] for name in settings.frozen}
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


def train_steps(setup: Setup, state: TrainState, tokens: Array, hyper: Hyper, count: Array | int):
    """`count` steps (at most config.train.steps_per_dispatch) in one dispatch; the state is donated.

    Returns (state, StepMetrics of arrays [steps_per_dispatch], of which the first `count` are filled). The count is
    traced, so every dispatch of a run is the same compiled program.
    """
    return _train_steps(setup.program, state, tokens, hyper, count)


def dispatch(program: Program, state: TrainState, tokens: Array, hyper: Hyper, count: Array):
    """What `train_steps` compiles, for programs that contain it."""
    capacity = program.config.train.steps_per_dispatch

    def body(index, loop):
        state, log = loop
        state, measured = train_step(program, state, tokens, hyper)
        return state, jax.tree.map(lambda row, value: row.at[index].set(value), log, measured)

    log = StepMetrics(*(jnp.zeros(capacity, jnp.float32) for _ in StepMetrics._fields))
    return jax.lax.fori_loop(0, count, body, (state, log))


_train_steps = jax.jit(dispatch, static_argnums=0, donate_argnums=1)


def compile_steps(setup: Setup) -> jax.stages.Compiled:
    """The compiled program of `train_steps`; nothing is run."""
    tokens = setup.corpus.splits["train"]
    shape = jax.ShapeDtypeStruct(tokens.shape, tokens.dtype)
    return _train_steps.lower(setup.program, setup.state_shapes, shape, setup.hyper, 1).compile()
