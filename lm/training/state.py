"""The training state: everything that determines the next step. Saved in every checkpoint."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax

from lm.tasks.task import Model
from lm.training import optim
from lm.training.optim import Average, Hyper

Array = jax.Array


class TrainState(NamedTuple):
    """Everything that determines the next step. Steps count from 0; `step` steps have been made."""

    step: Array  # int32 scalar
    cursor: Array  # int32 scalar: the next batch (lm/tasks/task.py)
    parameters: dict
    optimiser: optax.OptState
    carry: tuple  # language models: one per layer, fields [B, H]; other tasks: empty
    key: Array  # PRNG key; the noise of step s comes from fold_in(key, s)
    rate_factor: Array | None = None  # factor on the learning rate from plateau decays and rollbacks
    average: Average | None = None  # only asgd and nt_asgd


@functools.partial(jax.jit, static_argnums=(0, 1, 2))  # one program for all seeds and rates of a model
def fresh_state(
    model: Model, settings: ml_collections.FrozenConfigDict, batch_size: int, key: Array, hyper: Hyper
) -> TrainState:
    """The state before the first step: parameters drawn from `key`, zero optimiser state, initial carry.

    settings: {"optim": `optim.static_part`, "has_rate_factor": whether plateau decays or rollbacks are possible}
    """
    parameter_key, noise_key = jax.random.split(key)
    parameters = model.draw(parameter_key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        cursor=jnp.zeros((), jnp.int32),
        parameters=parameters,
        optimiser=optim.transformation(settings.optim, hyper).init(parameters),
        carry=model.initial_carry(batch_size),
        key=noise_key,
        rate_factor=jnp.ones((), jnp.float32) if settings.has_rate_factor else None,
        average=optim.no_average(parameters) if settings.optim.name in optim.AVERAGED else None,
    )


def start_arguments(config: ml_collections.FrozenConfigDict, model: Model, hyper: Hyper) -> tuple:
    """The arguments of `fresh_state` for a config."""
    has_rate_factor = config.optim.schedule == "plateau" or config.on_nan == "rollback"
    settings = {"optim": optim.static_part(config.optim), "has_rate_factor": has_rate_factor}
    key = jax.random.key(config.seed)
    return model, ml_collections.FrozenConfigDict(settings), config.data.batch_size, key, hyper


def state_shapes(config: ml_collections.FrozenConfigDict, model: Model, hyper: Hyper) -> TrainState:
    """The state's arrays as ShapeDtypeStructs."""
    # The key is a real array, because Checkpoints.restore reads its PRNG implementation.
    return fresh_state.eval_shape(*start_arguments(config, model, hyper))._replace(key=jax.random.key(0))


def evaluated_parameters(state: TrainState) -> dict:
    """The parameters that evaluation and sampling read: the average once it has begun, else the current ones."""
    averaging = state.average is not None and int(state.average.count) > 0
    return state.average.parameters if averaging else state.parameters
