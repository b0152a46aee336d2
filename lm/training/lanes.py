"""Lanes: runs of one shape, trained side by side as one compiled program.

Seeds, initial scales and all that `Hyper` traces (learning rates, keep probabilities, clip thresholds, ...) may differ
from lane to lane; so may how often a run is looked at. Each lane is an ordinary run in a workdir of its own, with the
files that `lm.training.loop.train` would write, and equals that run alone up to rounding.

The lanes are split over the devices. Within a device of a CPU they take turns, a dispatch each: products of several
small matrices at once run badly there (docs/speed.md). Other devices compute them all at once (vmap).
On a CPU it takes `cores.one_device_per_core` for more than one device.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lm.data.batches import on_device
from lm.data.corpora import Corpus
from lm.errors import UserError
from lm.machine import signals
from lm.machine.signals import Interrupted
from lm.runs import lock
from lm.runs.workdir import prepare_workdir
from lm.training import memory, optim
from lm.training.loop import ReadTest, Trainer, next_stop
from lm.training.optim import Hyper
from lm.training.step import Experiment, StepMetrics, TrainState, compiled_part, dispatch, make_experiment

Array = jax.Array

AXIS = "lanes"

# What Trainer.events needs the state for.
READ_STATE = {"validation", "sample", "checkpoint"}


# --- Which runs may be lanes of one program -------------------------------------------------------------------------

# Groups and keys of a config that lanes need not share.
FREE = ("name", "seed", "targets", "parameters", "init", "keep_prob", "zoneout", "penalty", "sample", "evaluation")
FREE_IN = {
    "loss": ("label_smoothing",),
    "checkpoint": ("every_steps", "keep", "best"),
    "train": ("steps", "epochs", "report_every", "evaluate_every", "sample_every", "patience"),
}


def same_program(a: ml_collections.ConfigDict, b: ml_collections.ConfigDict) -> bool:
    """Whether two configs, on one corpus, can be lanes of one program."""
    return _shared(a) == _shared(b)


def _shared(config: ml_collections.ConfigDict) -> dict:
    """What of a config all lanes must have in common."""
    shared = {key: value for key, value in config.to_dict().items() if key not in FREE}
    for group, free in FREE_IN.items():
        shared[group] = {key: value for key, value in shared[group].items() if key not in free}
    length = (config.train.steps, config.train.epochs) if config.optim.schedule == "cosine" else ()
    return shared | {"optim": optim.static_part(config.optim).to_dict(), "length": length}


# --- The program ----------------------------------------------------------------------------------------------------


def lane_mesh(lanes: int) -> Mesh:
    """All devices, or as many as there are lanes."""
    devices = jax.devices()[:lanes]
    return Mesh(np.array(devices), (AXIS,))


def stack_hypers(hypers: Sequence[Hyper]) -> Hyper:
    """Hypers of N runs -> one of arrays [N]; what is off in some lanes only gets the value there that does nothing."""

    def join(name, off):
        dictionaries = [getattr(hyper, name) for hyper in hypers]
        keys = sorted(set().union(*dictionaries))
        return {key: jnp.stack([d.get(key, optim.scalar(off)) for d in dictionaries]) for key in keys}

    scalars = {
        name: jnp.stack([getattr(h, name) for h in hypers]) for name in ("learning_rate", "clip", "weight_decay")
    }
    return Hyper(**scalars, keep=join("keep", 1.0), zoneout=join("zoneout", 0.0), objective=join("objective", 0.0))


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def lane_steps(
    experiment: Experiment, mesh: Mesh, within: str, states: TrainState, tokens: Array, hypers: Hyper, counts: Array
) -> tuple[TrainState, StepMetrics]:
    """`counts` [N] steps of N lanes; leaves of states and hypers have a leading axis [N], which the mesh divides.

    experiment: the `compiled_part` of every lane; within: how lanes share a device, "in_turn" or "vmap"
    Returns (states, StepMetrics of arrays [N, steps_per_dispatch], of which the first counts[n] are filled).
    """

    def on_one_device(states, tokens, hypers, counts):
        if within == "vmap":
            return jax.vmap(functools.partial(dispatch, experiment), in_axes=(0, None, 0, 0))(
                states, tokens, hypers, counts
            )
        return jax.lax.map(lambda lane: dispatch(experiment, lane[0], tokens, *lane[1:]), (states, hypers, counts))

    lanes, whole = PartitionSpec(AXIS), PartitionSpec()
    # Without check_vma loops may begin from constants; lanes exchange nothing, so there is nothing to check.
    split = jax.shard_map(
        on_one_device, mesh=mesh, in_specs=(lanes, whole, lanes, lanes), out_specs=lanes, check_vma=False
    )
    return split(states, tokens, hypers, counts)


@jax.jit
def _take(states: TrainState, lane: int) -> TrainState:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, lane, keepdims=False), states)


@functools.partial(jax.jit, donate_argnums=0)
def _put(states: TrainState, lane: int, state: TrainState) -> TrainState:
    return jax.tree.map(lambda x, new: jax.lax.dynamic_update_index_in_dim(x, new, lane, 0), states, state)


def common_part(experiments: Sequence[Experiment]) -> Experiment:
    """The compiled part that all lanes share. Raises UserError where they share none, or cannot be lanes."""
    if any(experiment.config.on_nan == "rollback" for experiment in experiments):
        raise UserError("config.on_nan=rollback is for a run of its own: a lane whose loss is not finite ends")
    if any(experiment.config.train.devices > 1 for experiment in experiments):
        raise UserError("config.train.devices must be 1 for lanes: whole runs are divided over devices, not rows")
    parts = {compiled_part(experiment) for experiment in experiments}
    if len(parts) != 1:
        raise UserError("runs of different shapes cannot be lanes of one program: only seeds, initial values and "
                        "numbers that a compiled step takes as arguments may differ")  # fmt: skip
    return parts.pop()


# --- The loop -------------------------------------------------------------------------------------------------------


class Lanes:
    """N trainers whose steps are made together."""

    def __init__(self, trainers: Sequence[Trainer], tokens: Array, within: str | None = None):
        self.part = common_part([trainer.experiment for trainer in trainers])
        self.trainers, self.errors = list(trainers), {}
        self.within = within or ("in_turn" if jax.default_backend() == "cpu" else "vmap")
        self.mesh = lane_mesh(len(trainers))
        # Every device gets equally many: the first lane stands in for those that are missing, and makes no step.
        self.slots = -(-len(trainers) // self.mesh.size) * self.mesh.size
        padded = [*trainers, *[trainers[0]] * (self.slots - len(trainers))]
        self.split = split = NamedSharding(self.mesh, PartitionSpec(AXIS))
        whole = NamedSharding(self.mesh, PartitionSpec())
        states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(trainer.state for trainer in padded))
        self.states = jax.device_put(states, split)
        self.hypers = jax.device_put(stack_hypers([trainer.hyper for trainer in padded]), split)
        self.tokens = jax.device_put(tokens, whole)
        self.summaries = {}

    def run(self) -> list[dict | UserError]:
        """Trains all lanes to their ends: for each its summary, or what went wrong with it."""
        with contextlib.ExitStack() as logs:
            for trainer in self.trainers:
                logs.enter_context(trainer.open_log())
                logs.enter_context(trainer.checkpoints)  # however this is left, saves under way are written
            asked = logs.enter_context(signals.listening())
            self._close_finished(asked)
            while open_lanes := self._open():
                if asked():
                    self._save(open_lanes)
                    raise Interrupted(asked(), f"stopped with {len(open_lanes)} lanes under way, all saved")
                self._dispatch(open_lanes)
                self._close_finished(asked)
        return [self.summaries.get(lane, self.errors.get(lane)) for lane in range(len(self.trainers))]

    def _open(self) -> list[int]:
        """The lanes that have not ended."""
        return [n for n in range(len(self.trainers)) if n not in self.summaries and n not in self.errors]

    def _save(self, lanes: list[int]):
        for lane in lanes:
            self.trainers[lane].state = self.state(lane)
            self.trainers[lane].save_here()

    def _dispatch(self, open_lanes: list[int]):
        """To the next moment that any lane must look. Lanes that a kill left behind catch up with the others first."""
        done = {lane: self.trainers[lane].done for lane in open_lanes}
        moving = [lane for lane in open_lanes if done[lane] == min(done.values())]
        stops = [next_stop(self.trainers[lane].experiment, done[lane]) for lane in moving]
        stop = min(stops + [steps for steps in done.values() if steps > min(done.values())])
        counts = np.zeros(self.slots, np.int32)
        counts[moving] = count = stop - min(done.values())
        began = time.perf_counter()
        self.states, measured = lane_steps(
            self.part, self.mesh, self.within, self.states, self.tokens, self.hypers, jnp.asarray(counts)
        )
        measured = jax.tree.map(lambda x: np.asarray(x, np.float64)[:, :count], measured)
        seconds = time.perf_counter() - began
        for lane in moving:
            try:
                self._account(lane, jax.tree.map(lambda x, lane=lane: x[lane], measured), seconds)
            except UserError as error:  # this lane ends here; the others never see it
                self.errors[lane] = error
                print(f"lane {lane} ({self.trainers[lane].workdir}) has ended: {error}")

    def _account(self, lane: int, measured: StepMetrics, seconds: float):
        """What follows a dispatch for one lane."""
        trainer = self.trainers[lane]
        trainer.account(measured, seconds)
        reads = trainer.due() & READ_STATE
        if reads:
            before = trainer.state = self.state(lane)
        trainer.events()
        if reads and trainer.state is not before:  # validation has changed it: a rate decayed, an average begun
            state = jax.device_put(trainer.state, NamedSharding(self.mesh, PartitionSpec()))
            self.states = jax.device_put(_put(self.states, lane, state), self.split)

    def state(self, lane: int) -> TrainState:
        """A lane's own state, on the first device."""
        return jax.device_put(_take(self.states, lane), jax.devices()[0])

    def _close_finished(self, asked: Callable[[], int | None]):
        """Scores the lanes that have made their last step, until a signal asks for an end."""
        for lane in self._open():
            trainer = self.trainers[lane]
            if trainer.finished and not asked():
                self.summaries[lane] = trainer.finish()


def train_lanes(
    configs: Sequence[ml_collections.ConfigDict],
    corpus: Corpus,
    workdirs: Sequence[str],
    within: str | None = None,
    read_test: ReadTest | None = None,
) -> list[dict | UserError]:
    """Trains N configs on one corpus as lanes, each in its workdir, going on from its last checkpoint.

    within: how lanes share a device, "in_turn" or "vmap"; None: what suits it
    read_test: as of `lm.training.loop.Trainer`
    Returns for each lane its summary, or the UserError that ended it. Raises UserError where the configs are not of
    one shape (`same_program`), or one of them is at fault before its first step.
    """
    experiments = [make_experiment(config, corpus) for config in configs]
    common_part(experiments)  # what is refused leaves no trace
    for experiment in experiments:
        memory.check(experiment, copies=len(experiments))
    pairs = list(zip(configs, workdirs, strict=True))
    with contextlib.ExitStack() as locks:
        for workdir in workdirs:
            locks.enter_context(lock.alone(workdir))
        for config, workdir in pairs:
            prepare_workdir(workdir, config)
        tokens = on_device(corpus.splits["train"])
        trainers = [Trainer(config, corpus, workdir, tokens, read_test) for config, workdir in pairs]
        return Lanes(trainers, tokens, within).run()
