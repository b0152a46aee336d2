"""A training setup: a config, checked against its corpus, and the task made from both, before anything is allocated."""

import functools
from typing import NamedTuple

import jax
import ml_collections

from configs.rules import check_values
from lm.data.corpora import Corpus
from lm.errors import UserError, check_name
from lm.runs.workdir import OVER_THE_RUN
from lm.tasks import make_task
from lm.tasks.task import Task
from lm.training import devices, optim, validation
from lm.training.optim import Hyper
from lm.training.pretrained import Start, overlay
from lm.training.state import TrainState, fresh_state, start_arguments, state_shapes


class Program(NamedTuple):
    """Everything that a compiled training step depends on. Static under jit: equal programs share one compiled step."""

    config: ml_collections.FrozenConfigDict  # without traced numbers (`Hyper`) and keys that only the host reads
    task: Task
    total_steps: int  # 0 unless the learning rate depends on it


class Setup:
    """One run's config, corpus and everything made from both. Use `make_setup`, which checks the config first.

    config: frozen; hyper: the traced scalars of the config; state_shapes: the state's arrays as ShapeDtypeStructs
    """

    def __init__(self, config: ml_collections.FrozenConfigDict, corpus: Corpus, task: Task, start: Start | None = None):
        self.config, self.corpus, self.task, self.start = config, corpus, task, start
        self.total_steps = config.train.steps or config.train.epochs * task.steps_per_epoch
        self.hyper: Hyper = optim.hyper_of(config)

    def initial_state(self) -> TrainState:
        state = fresh_state(*start_arguments(self.config, self.task.model, self.hyper))
        return state._replace(parameters=overlay(state.parameters, self.start.parameters)) if self.start else state

    @functools.cached_property
    def state_shapes(self) -> TrainState:
        return state_shapes(self.config, self.task.model, self.hyper)

    @functools.cached_property
    def data_shapes(self):
        """The training split on the device, as ShapeDtypeStructs."""
        return jax.eval_shape(lambda: self.task.on_device(self.corpus.splits["train"]))

    @functools.cached_property
    def program(self) -> Program:
        """The program of the step. Setups that differ only in keys that the step does not read share it."""
        config = self.config
        needed = ml_collections.FrozenConfigDict(
            {
                "dropout": config.dropout,
                "optim": optim.static_part(config.optim),
                "train": {"steps_per_dispatch": config.train.steps_per_dispatch, "devices": config.train.devices},
            }
        )
        length = self.total_steps if config.optim.schedule in OVER_THE_RUN else 0
        return Program(needed, self.task.for_training(), length)


def check_length(train: ml_collections.ConfigDict):
    """Raises UserError unless exactly one of config.train.steps and config.train.epochs is positive."""
    if (train.steps > 0) == (train.epochs > 0):
        raise UserError(
            "exactly one of config.train.steps and config.train.epochs must be positive, "
            f"not steps={train.steps} and epochs={train.epochs}"
        )


def make_setup(config: ml_collections.ConfigDict, corpus: Corpus, start: Start | None = None) -> Setup:
    """Checks the config against the corpus and makes the setup. Raises UserError naming the key at fault.

    start: given initial parameters of a new run; None draws all at random
    """
    check_values(config)
    task, train = make_task(config, corpus), config.train
    check_length(train)
    devices.check_devices(train.devices, task.batch_size)
    if config.optim.schedule == "plateau" and config.optim.decay_rate >= 1:
        raise UserError(f"config.optim.decay_rate must be below 1, not {config.optim.decay_rate}, for schedule=plateau")
    task.check(config, corpus)
    validation.check_validation(config, corpus.splits)
    setup = Setup(ml_collections.FrozenConfigDict(config), corpus, task, start)
    for key in ("frozen", "unit_rows"):
        for name in config.optim[key]:
            check_name(name, setup.state_shapes.parameters, f"config.optim.{key}")
    if both := set(config.optim.unit_rows) & set(config.optim.frozen):
        raise UserError(f"config.optim.unit_rows and config.optim.frozen both name {min(both)}: remove it from one")
    for name in config.optim.unit_rows:
        if getattr(setup.state_shapes.parameters[name], "ndim", 0) != 2:
            raise UserError(f"config.optim.unit_rows: {name} is not a matrix")
    if setup.total_steps >= 2**31:
        raise UserError(
            f"config.train asks for {setup.total_steps} steps, too many for a 32-bit counter: lower config.train.steps "
            "or config.train.epochs"
        )
    return setup
