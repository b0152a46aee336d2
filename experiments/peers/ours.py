"""This project's code: the compiled steps, exact scoring and sampling that its commands run."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments.peers.sequences import draw_sequences
from experiments.peers.workload import Program, Workload, draw_parameters, draw_text, mean_nats, windows
from lm.data.corpora import Corpus
from lm.data.examples import Examples
from lm.data.text import Vocabulary
from lm.machine.cores import limit_threads
from lm.model.language_model import LanguageModel
from lm.runs.provenance import provenance, revision
from lm.scoring.protocols import exact_nats
from lm.scoring.sampling import generate
from lm.training.setup import Setup, make_setup
from lm.training.state import TrainState
from lm.training.step import train_steps

CELLS = {"lstm": "lstm", "gru": "gru_reset_after", "elman": "elman_tanh"}


def experiment_config(workload: Workload, config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the training config with the workload's sizes and settings."""
    config = ml_collections.ConfigDict(config.to_dict())
    config.data.batch_size = workload.batch
    config.model.cell = CELLS[workload.cell]
    config.model.input = "embedding" if workload.embedding else "one_hot"
    config.model.embedding_size = workload.embedding
    config.model.hidden = workload.hidden
    config.train.steps = 1_000_000  # never reached
    config.optim.learning_rate = workload.learning_rate
    if workload.labelled:
        config.task = "classification"
        config.data.max_tokens, config.data.buckets = workload.length, workload.buckets
        config.model.output, config.optim.name = "sigmoid", "adam"
        return config
    config.data.batching, config.data.unroll = "rows", workload.unroll
    config.keep_prob.between = config.keep_prob.output = workload.keep_prob
    if workload.embedding:
        config.keep_prob.input = workload.keep_prob
    config.loss.weighting = workload.weighting
    config.optim.name = "sgd"
    config.optim.clipping, config.optim.clip = "global_norm", workload.clip
    config.sample.number, config.sample.start = workload.batch, "random"
    config.sample.length = max(1, workload.length - 1)  # without the start token
    return config


def describe() -> dict:
    """Provenance of this project: versions, device and revision."""
    return provenance({}, Corpus("random", Vocabulary("char", ("a",)), {}, {}), revision())


def build(workload: Workload, config: ml_collections.ConfigDict, **changes) -> Program:
    """Builds the program. config: a training config; changes: fields of the workload to replace."""
    workload = workload._replace(**changes)
    limit_threads(workload.threads)
    level, first = ("char", 0x100) if workload.vocabulary < 1000 else ("word", 0)
    symbols = tuple(chr(first + i) if level == "char" else f"w{i}" for i in range(workload.vocabulary))
    config = experiment_config(workload, config)
    parameters = flax.traverse_util.unflatten_dict(
        {name: jnp.asarray(value) for name, value in draw_parameters(workload).items()}, sep="."
    )
    if workload.labelled:
        examples, vocabulary = Examples(*draw_sequences(workload)), Vocabulary(level, symbols, labels=("0", "1"))
        setup = make_setup(config, Corpus("random", vocabulary, {"train": examples}, {}))
        return _classification(setup, parameters, examples)
    text = draw_text(workload)
    corpus = Corpus("random", Vocabulary(level, symbols), {"train": text, "valid": text}, {})
    setup = make_setup(config, corpus)
    if workload.kind == "train":
        return Program(_steps(setup, setup.initial_state()._replace(parameters=parameters), jnp.asarray(text)))
    if workload.kind == "evaluate":
        return _evaluation(workload, setup.task.model, parameters, text)
    return _sampling(workload, setup.task.model, config.sample, parameters, corpus)


def _steps(setup: Setup, state: TrainState, data, epoch: int = sys.maxsize) -> Callable[[int], float]:
    """Dispatches steps as lm/training/loop.py does: no dispatch crosses the end of an epoch of `epoch` steps."""
    capacity, done = setup.config.train.steps_per_dispatch, 0

    def run(n: int) -> float:
        nonlocal state, done
        while n:
            count = min(n, capacity, epoch - done % epoch)
            state, measured = train_steps(setup, state, data, setup.hyper, count)
            measured = jax.tree.map(np.asarray, measured)  # as after every dispatch of training
            n, done = n - count, done + count
        return float(measured.loss[count - 1])

    return run


def _classification(setup: Setup, parameters: dict, examples: Examples) -> Program:
    task = setup.task
    data, steps = task.on_device(examples), task.steps_per_epoch
    state = setup.initial_state()._replace(parameters=parameters)
    key = jax.random.clone(state.key)  # a step donates the state's own key

    @functools.lru_cache(1)
    def rows(epoch: int) -> np.ndarray:
        return np.asarray(task.order(data, key, jnp.asarray(epoch * steps)).rows)

    def batches(step: int) -> np.ndarray:
        ids = rows(step // steps)[step % steps]
        return ids[ids >= 0]

    return Program(_steps(setup, state, data, steps), batches=batches)


def _evaluation(workload: Workload, model: LanguageModel, parameters: dict, text: np.ndarray) -> Program:
    def run(n: int) -> float:
        for _ in range(n):
            nats = exact_nats(model, parameters, text)
        return mean_nats([nats], workload)

    return Program(run)


def _sampling(workload: Workload, model: LanguageModel, sample, parameters: dict, corpus: Corpus) -> Program:
    seeds = iter(range(1_000_000))

    def run(n: int) -> float:
        for _ in range(n):
            texts = generate(model, parameters, corpus.vocabulary, sample, jax.random.key(next(seeds)))
            assert (len(texts), len(texts[0])) == (workload.batch, workload.length)
        return float("nan")

    def first_nats() -> float:
        window = jnp.asarray(windows(workload, corpus.splits["train"])[0])
        carry = model.initial_carry(workload.batch)
        result: Any = model.apply({"params": parameters}, window, carry, method="nats")
        return float(result[1].mean())

    return Program(run, first_nats)
