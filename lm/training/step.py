"""Training on the device: the pure step, and many steps per dispatch. The loop around it: lm/training/loop.py.

The data stays on the device, and batches are cut from it inside jit. Only small arrays of metrics return to the host,
once per dispatch.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from lm.model.dropout import Noise
from lm.training import devices, optim
from lm.training.optim import Hyper
from lm.training.setup import Program, Setup
from lm.training.state import TrainState

Array = jax.Array


class StepMetrics(NamedTuple):
    """Measurements of one step, or arrays [K] of the K steps of a dispatch."""

    loss: Array  # mean nats over targets with a weight above 0
    gradient_norm: Array  # global norm before clipping
    learning_rate: Array


def train_step(program: Program, state: TrainState, data: PyTree, hyper: Hyper):
    """Makes a step on one batch of the training split `data`. Returns (next state, StepMetrics of scalars)."""
    config, task, total_steps = program
    noise = None
    if hyper.keep or hyper.zoneout or task.draws:
        noise = Noise(jax.random.fold_in(state.key, state.step), hyper.keep, hyper.zoneout, config.dropout.mask)
    gradients, carry, loss = batch_gradients(program, state, data, noise, hyper)
    settings, epoch = config.optim, task.steps_per_epoch
    # Frozen parameters must not count in the gradient norm, by which clipping scales the gradients of the others.
    gradients |= {name: jax.tree.map(jnp.zeros_like, gradients[name]) for name in settings.frozen}
    rate = optim.learning_rate(settings, hyper.learning_rate, state.step, epoch, total_steps, state.rate_factor)
    updates, optimiser = optim.transformation(settings, hyper).update(gradients, state.optimiser, state.parameters)
    updates = optim.clip_step(settings, hyper, rate, updates)
    parameters = jax.tree.map(lambda parameter, update: parameter - rate * update, state.parameters, updates)
    parameters |= {name: state.parameters[name] for name in settings.frozen}
    parameters |= {name: optim.unit_rows(parameters[name]) for name in settings.unit_rows}
    average = state.average
    if average is not None:
        average = optim.extend_average(settings, average, parameters, state.step)
    measured = StepMetrics(loss, optax.tree.norm(gradients), rate)
    after = state._replace(
        step=state.step + 1,
        cursor=task.advance(state.cursor),
        parameters=parameters,
        optimiser=optimiser,
        carry=carry,
        average=average,
    )
    return devices.constrain(config.train.devices, after), measured


def batch_gradients(program: Program, state: TrainState, data: PyTree, noise: Noise | None, hyper: Hyper):
    """Returns (gradients of the next batch's objective, carry after it, mean nats of targets with a weight above 0)."""
    config, task, _ = program
    carry = task.start_of(state.cursor, state.carry)

    def gradients_of(parameters, *arguments):
        def objective(parameters):
            return task.loss(parameters, *arguments)

        (_, (carry, nats)), gradients = jax.value_and_grad(objective, has_aux=True)(parameters)
        return gradients, carry, nats

    def of_shape(shape):
        batch, weights = task.batch(shape, data, state.cursor)
        arguments = (state.parameters, batch, carry, weights, noise, hyper.objective | task.terms(state.step))
        gradients, after, nats = devices.over_rows(config.train.devices, gradients_of)(*arguments)
        weighed = (weights > 0).astype(nats.dtype)
        return gradients, after, jnp.sum(weighed * nats) / jnp.sum(weighed)

    if len(task.shapes) == 1:
        return of_shape(task.shapes[0])
    return jax.lax.switch(
        task.shape_index(data, state.cursor), [functools.partial(of_shape, shape) for shape in task.shapes]
    )


def train_steps(setup: Setup, state: TrainState, data: PyTree, hyper: Hyper, count: Array | int):
    """Makes `count` steps (at most config.train.steps_per_dispatch) in one dispatch. Donates the state.

    Returns (state, StepMetrics of arrays [steps_per_dispatch]); only the first `count` entries are set. `count` is
    traced, so every dispatch of a run uses the same compiled program.
    """
    return _train_steps(setup.program, state, data, hyper, count)


def dispatch(program: Program, state: TrainState, data: PyTree, hyper: Hyper, count: Array):
    """The function that `train_steps` compiles, for use inside other compiled functions."""
    capacity = program.config.train.steps_per_dispatch
    data = program.task.order(data, state.key, state.step)

    def body(index, loop):
        state, log = loop
        state, measured = train_step(program, state, data, hyper)
        return state, jax.tree.map(lambda row, value: row.at[index].set(value), log, measured)

    log = StepMetrics(*(jnp.zeros(capacity, jnp.float32) for _ in StepMetrics._fields))
    return jax.lax.fori_loop(0, count, body, (state, log))


_train_steps = jax.jit(dispatch, static_argnums=0, donate_argnums=1)


def compile_steps(setup: Setup) -> jax.stages.Compiled:
    """Compiles the program of `train_steps` without running it."""
    return _train_steps.lower(setup.program, setup.state_shapes, setup.data_shapes, setup.hyper, 1).compile()
