"""The smallest experiment that shows everything: a five-symbol text and a model of a few units, shared by tests."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np

from configs.base import base
from lm.data.corpora import Corpus
from lm.data.text import Vocabulary
from lm.model.language_model import LanguageModel, make_model
from lm.training.setup import Setup, make_setup
from lm.training.state import TrainState
from lm.training.step import dispatch

SYMBOLS = " abcd"
V = len(SYMBOLS)
STEPS = dispatch.__name__  # how `compilations` names the program that trains


def text(length: int, seed: int = 0) -> np.ndarray:
    """[N] uint8 ids of a first-order Markov chain that a model can learn: 8 times in 10 comes the next symbol."""
    rng = np.random.default_rng(seed)
    moves = rng.choice(V, length, p=[0.05, 0.8, 0.05, 0.05, 0.05])
    return (np.cumsum(moves) % V).astype(np.uint8)


def corpus(train: int = 403, valid: int = 61) -> Corpus:
    splits = {"train": text(train), "valid": text(valid, seed=1)}
    return Corpus("tiny", Vocabulary("char", tuple(SYMBOLS)), splits, {})


def config(**changes):
    """Plain SGD on 3 read heads; changes: dotted keys with two underscores for a dot."""
    c = base()
    c.data.batch_size, c.data.unroll = 3, 4
    c.model.hidden = (3,)
    for role in ("embedding", "input", "recurrent", "bias", "output", "output_bias"):
        c.init[role] = ("uniform", -0.9, 0.9)
    c.optim.clipping, c.optim.clip = "global_norm", 1.0
    c.train.steps = 12
    c.train.report_every = 5
    c.train.evaluate_every = 1000
    c.train.steps_per_dispatch = 4
    c.evaluation.during = "exact"
    c.sample.number, c.sample.length, c.sample.start = 2, 12, "random"
    c.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return c


def model(seed: int = 0, **changes) -> tuple[LanguageModel, dict]:
    """A model of `config(**changes)`, and parameters of U(-0.9, 0.9) that NumPy draws, which compiles nothing."""
    made = make_model(config(**changes), V)
    shapes = jax.eval_shape(made.draw, jax.random.key(0))
    return made, draw(shapes, seed)


def draw(shapes, seed: int = 0):
    """A pytree of arrays, or of their shapes -> arrays of U(-0.9, 0.9)."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.uniform(-0.9, 0.9, x.shape).astype(x.dtype)), shapes)


def setups(configs) -> list[Setup]:
    return [make_setup(each, corpus()) for each in configs]


def state(setup: Setup, seed: int = 0) -> TrainState:
    """The state before step 0, with the parameters of `model`."""
    shapes = setup.state_shapes
    return shapes._replace(
        step=jnp.int32(0),
        cursor=jnp.int32(0),
        parameters=draw(shapes.parameters, seed),
        optimiser=jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes.optimiser),
        carry=setup.task.model.initial_carry(setup.task.batch_size),
        key=jax.random.key(seed),
    )


@contextlib.contextmanager
def compilations():
    """A list that names every program that XLA compiles inside the with block."""
    names = []

    def listen(event, duration, **details):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(details.get("fun_name", "?"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
