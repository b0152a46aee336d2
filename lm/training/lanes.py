"""Lanes: runs of one shape, trained side by side as one compiled program.

Seeds, initial scales and everything that `Hyper` traces (learning rates, keep probabilities, clip thresholds, ...) may
differ from lane to lane; so may the steps at which a run reports, validates or saves. Each lane is an ordinary run in
its own work directory: it writes the files of `lm.training.loop.train`, with the same results up to rounding.

The lanes are split over the devices. Lanes that share a CPU device take turns, one dispatch each: a batched product of
several small matrices is slow there (docs/speed.md). Other devices compute their lanes together (vmap).
Call `cores.one_device_per_core` first to use more than one core of a CPU.
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
from jaxtyping import PyTree

from lm.errors import UserError
from lm.machine import signals
from lm.machine.signals import Interrupted
from lm.runs import lock
from lm.runs.workdir import OVER_THE_RUN, accept_config, prepare_workdir
from lm.training import memory, optim
from lm.training.events import check_longer, next_stop
from lm.training.optim import Hyper
from lm.training.recorder import ReadTest, Recorder
from lm.training.setup import Program, Setup
from lm.training.state import TrainState
from lm.training.step import StepMetrics, dispatch

Array = jax.Array

AXIS = "lanes"


# --- Which runs may be lanes of one program -------------------------------------------------------------------------

# Parts of a config that lanes need not share: groups and top-level keys (FREE), and keys of other groups (FREE_IN).
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
    """The part of a config that all lanes must have in common."""
    shared = {key: value for key, value in config.to_dict().items() if key not in FREE}
    for group, free in FREE_IN.items():
        shared[group] = {key: value for key, value in shared[group].items() if key not in free}
    length = (config.train.steps, config.train.epochs) if config.optim.schedule in OVER_THE_RUN else ()
    return shared | {"optim": optim.static_part(config.optim).to_dict(), "length": length}


# --- The program ----------------------------------------------------------------------------------------------------


def stack_hypers(hypers: Sequence[Hyper]) -> Hyper:
    """Stacks the hyperparameters of N runs into arrays [N]; a regulariser that some lanes switch off gets its neutral
    value there."""

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
    program: Program, mesh: Mesh, within: str, states: TrainState, data: PyTree, hypers: Hyper, counts: Array
) -> tuple[TrainState, StepMetrics]:
    """Makes counts[n] steps of each lane n. Leaves of states and hypers have a leading axis [N], split over the mesh.

    program: shared by all lanes; within: how lanes share a device, "in_turn" or "vmap"
    Returns (states, StepMetrics of arrays [N, steps_per_dispatch]). Row n has values in its first counts[n] columns.
    """

    def on_one_device(states, data, hypers, counts):
        if within == "vmap":
            return jax.vmap(functools.partial(dispatch, program), in_axes=(0, None, 0, 0))(states, data, hypers, counts)
        return jax.lax.map(lambda lane: dispatch(program, lane[0], data, *lane[1:]), (states, hypers, counts))

    lanes, replicated = PartitionSpec(AXIS), PartitionSpec()
    # check_vma rejects loops that start from constants. It is not needed, because lanes exchange nothing.
    split = jax.shard_map(
        on_one_device, mesh=mesh, in_specs=(lanes, replicated, lanes, lanes), out_specs=lanes, check_vma=False
    )
    return split(states, data, hypers, counts)


@jax.jit
def _take(states: TrainState, lane: int) -> TrainState:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, lane, keepdims=False), states)


@functools.partial(jax.jit, donate_argnums=0)
def _put(states: TrainState, lane: int, state: TrainState) -> TrainState:
    return jax.tree.map(lambda x, new: jax.lax.dynamic_update_index_in_dim(x, new, lane, 0), states, state)


def common_program(setups: Sequence[Setup]) -> Program:
    """Returns the program of all lanes. Raises UserError if their programs differ, or a config forbids lanes."""
    if any(setup.config.on_nan == "rollback" for setup in setups):
        raise UserError("config.on_nan=rollback works only for a single run: a lane with a non-finite loss ends")
    if any(setup.config.train.devices > 1 for setup in setups):
        raise UserError("config.train.devices must be 1 for lanes: a device trains complete lanes, not rows of a batch")
    programs = {setup.program for setup in setups}
    if len(programs) != 1:
        raise UserError(
            "runs of different shapes cannot be lanes of one program: lanes may differ only in seeds, initial values "
            "and hyperparameters such as config.optim.learning_rate and config.keep_prob"
        )
    return programs.pop()


# --- The loop -------------------------------------------------------------------------------------------------------


class Lanes:
    """N runs that train together, with one recorder each."""

    def __init__(self, recorders: Sequence[Recorder], data: PyTree, within: str | None = None):
        self.program = common_program([recorder.setup for recorder in recorders])
        self.recorders, self.errors, self.summaries = list(recorders), {}, {}
        self.within = within or ("in_turn" if jax.default_backend() == "cpu" else "vmap")
        self.mesh = Mesh(np.array(jax.devices()[: len(recorders)]), (AXIS,))
        # Every device needs equally many lanes: copies of the first lane fill the last places and make no steps.
        self.slots = -(-len(recorders) // self.mesh.size) * self.mesh.size
        padding = self.slots - len(recorders)
        self.split, self.replicated = (NamedSharding(self.mesh, PartitionSpec(*axes)) for axes in ((AXIS,), ()))
        states = [recorder.restore() for recorder in recorders]
        hypers = [recorder.setup.hyper for recorder in recorders]
        padded = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states, *states[:1] * padding)
        self.states = jax.device_put(padded, self.split)
        self.hypers = jax.device_put(stack_hypers([*hypers, *hypers[:1] * padding]), self.split)
        self.data = jax.device_put(data, self.replicated)

    def run(self) -> list[dict | UserError]:
        """Trains all lanes. Returns the summary of each lane, or the UserError that ended it."""
        with contextlib.ExitStack() as logs:
            for recorder in self.recorders:
                logs.enter_context(recorder.open_log())
                logs.enter_context(recorder.checkpoints)  # finishes pending saves on any exit
            pending = logs.enter_context(signals.listening())
            self._finish_lanes(pending)
            while active := self._active():
                if pending():
                    for lane in active:
                        self.recorders[lane].save(self.state(lane), wait=True)
                    raise Interrupted(pending(), f"stopped with {len(active)} unfinished lanes, all saved")
                self._dispatch(active)
                self._finish_lanes(pending)
        return [self.summaries.get(lane, self.errors.get(lane)) for lane in range(len(self.recorders))]

    def _active(self) -> list[int]:
        return [n for n in range(len(self.recorders)) if n not in self.summaries and n not in self.errors]

    def _dispatch(self, active: list[int]):
        """Advances the active lanes to the next event. Lanes that lag behind after a kill catch up first."""
        done = {lane: self.recorders[lane].done for lane in active}
        least = min(done.values())
        moving = [lane for lane in active if done[lane] == least]
        stops = [next_stop(self.recorders[lane].setup, least) for lane in moving]
        stop = min(stops + [steps for steps in done.values() if steps > least])
        counts = np.zeros(self.slots, np.int32)
        counts[moving] = count = stop - least
        began = time.perf_counter()
        self.states, measured = lane_steps(
            self.program, self.mesh, self.within, self.states, self.data, self.hypers, jnp.asarray(counts)
        )
        measured = jax.tree.map(lambda x: np.asarray(x, np.float64)[:, :count], measured)
        seconds = time.perf_counter() - began
        for lane in moving:
            try:
                self._record(lane, jax.tree.map(lambda x, lane=lane: x[lane], measured), seconds)
            except UserError as error:  # ends this lane; the others continue
                self.errors[lane] = error
                print(f"lane {lane} ({self.recorders[lane].workdir}) failed: {error}")

    def _record(self, lane: int, measured: StepMetrics, seconds: float):
        """Passes a dispatch's measurements to one lane's recorder, and the lane's state if an event needs it."""
        recorder = self.recorders[lane]
        recorder.account(measured, seconds)
        before = self.state(lane) if recorder.needs_state() else None
        after = recorder.handle_events(before)  # ty: ignore[invalid-argument-type]: None unless needs_state
        if after is not before:  # validation decayed a rate or began an average
            state = jax.device_put(after, self.replicated)
            self.states = jax.device_put(_put(self.states, lane, state), self.split)

    def state(self, lane: int) -> TrainState:
        """Copies the state of one lane to the first device."""
        return jax.device_put(_take(self.states, lane), jax.devices()[0])

    def _finish_lanes(self, pending: Callable[[], int | None]):
        """Scores the lanes that have made their last step, unless a signal is pending."""
        for lane in self._active():
            if self.recorders[lane].finished and not pending():
                self.summaries[lane] = self.recorders[lane].finish(self.state(lane))


def train_lanes(
    setups: Sequence[Setup], workdirs: Sequence[str], within: str | None = None, read_test: ReadTest | None = None
) -> list[dict | UserError]:
    """Trains N setups of one corpus as lanes, each in its work directory, resuming from its last checkpoint.

    within: how lanes share a device, "in_turn" or "vmap"; None: the faster one; read_test: see lm/training/recorder.py
    Returns for each lane its summary, or the UserError that ended it. Raises UserError if the setups do not share a
    program, or if one of them cannot start.
    """
    common_program(setups)  # before anything is written
    for setup in setups:
        memory.check_memory(setup, copies=len(setups))
    with contextlib.ExitStack() as locks:
        for workdir in workdirs:
            locks.enter_context(lock.alone(workdir))
        for setup, workdir in zip(setups, workdirs, strict=True):
            prepare_workdir(workdir, setup.config, setup.corpus.vocabulary)
        data = setups[0].task.on_device(setups[0].corpus.splits["train"])
        recorders = [Recorder(setup, workdir, read_test) for setup, workdir in zip(setups, workdirs, strict=True)]
        lanes = Lanes(recorders, data, within)
        for recorder in recorders:
            check_longer(recorder.setup, recorder.workdir, recorder.done)
        for recorder in recorders:
            accept_config(recorder.workdir, recorder.setup.config)
        return lanes.run()
