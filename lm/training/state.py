"""The training state: everything that decides the next step, saved with every checkpoint."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from lm.model.language_model import LanguageModel, init_parameters
from lm.training import optim
from lm.training.optim import Average, Hyper

Array = jax.Array


class TrainState(NamedTuple):
    """Everything that decides the next step. Steps count from 0; `step` steps have been made."""

    step: Array  # int32 scalar
    cursor: Array  # int32 scalar: lm/data/batches.py
    parameters: dict
    optimiser: tuple  # optax state
    carry: tuple  # one per layer, fields [B, H]
    key: Array  # PRNG key; the noise of step s comes from fold_in(key, s)
    rate_factor: Array | None = None  # what plateau decays and rollbacks have made of the learning rate
    average: Average | None = None  # asgd, nt_asgd


def fresh_state(config: ml_collections.ConfigDict, model: LanguageModel, hyper: Hyper) -> TrainState:
    """The state before the first step: parameters drawn from `config.seed`, zero optimiser state, initial carry."""
    parameter_key, noise_key = jax.random.split(jax.random.key(config.seed))
    parameters = init_parameters(model, parameter_key)
    has_rate_factor = config.optim.schedule == "plateau" or config.on_nan == "rollback"
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        cursor=jnp.zeros((), jnp.int32),
        parameters=parameters,
        optimiser=optim.transformation(config.optim, hyper).init(parameters),
        carry=model.initial_carry(config.data.batch_size),
        key=noise_key,
        rate_factor=jnp.ones((), jnp.float32) if has_rate_factor else None,
        average=optim.no_average(parameters) if config.optim.name in optim.AVERAGED else None,
    )


def evaluated_parameters(state: TrainState) -> dict:
    """The parameters that evaluation and sampling read: the average once it has begun, else the current ones."""
    averaging = state.average is not None and int(state.average.count) > 0
    return state.average.parameters if averaging else state.parameters
