"""Data-parallel training: splits the rows of a batch and their carries over devices and replicates everything else.

jit partitions the step by the shardings of its arguments. Only the gradient is partitioned by hand (`over_rows`): each
device computes the gradient of its own rows, and the gradients are summed once per step. Target weights and noise are
made for the full batch, and a device reads its rows of them, so the number of devices changes results only by rounding.
With one device these functions are no-ops.

Devices may belong to several processes that run the same program (`jax.distributed`). Each process can read replicated
arrays; the carry, which is split, must be gathered first. Process 0 writes all files.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lm.errors import UserError
from lm.model.losses import MEANS

Array = jax.Array

AXIS = "rows"  # the only axis of the mesh
SPLIT = "carry"  # the only field of the state that is split: over the first axis of its arrays [B, H]
_WHOLE, _ROWS, _COLUMNS = PartitionSpec(), PartitionSpec(AXIS), PartitionSpec(None, AXIS)


def check_devices(count: int, batch_size: int):
    """Checks `config.train.devices`. Raises UserError."""
    processes = jax.process_count()
    if count % processes:
        raise UserError(
            f"config.train.devices={count} must be a multiple of the {processes} processes: "
            "all processes use equally many devices"
        )
    if batch_size % count:
        raise UserError(f"config.train.devices={count} must divide config.data.batch_size={batch_size}")
    wanted, here = count // processes, jax.local_device_count()
    if wanted > here:
        raise UserError(
            f"config.train.devices={count} needs {wanted} devices in this process, which has {here} "
            f"({jax.local_devices()[0].platform}); on a CPU, set the environment "
            f"variable XLA_FLAGS=--xla_force_host_platform_device_count={wanted} for virtual devices"
        )


@functools.cache
def make_mesh(count: int) -> Mesh:
    """Makes the mesh over `count` devices: equally many from each process, in process order."""
    processes = jax.process_count()
    owned = [[device for device in jax.devices() if device.process_index == p] for p in range(processes)]
    return Mesh(np.array([device for some in owned for device in some[: count // processes]]), (AXIS,))


# --- Inside jit -----------------------------------------------------------------------------------------------------


def over_rows(count: int, gradients_of: Callable) -> Callable:
    """Returns `gradients_of` with the rows of the batch split over `count` devices.

    gradients_of(parameters, window [T + 1, B], carry, weights [T + 1 - context, B], noise, terms) -> (gradients,
    carry, nats [T + 1 - context, B]), with terms {name: factor of a term in the objective}. The objective must be a sum
    over rows, except for the terms named in MEANS, which must be means over rows.
    """
    if count == 1:
        return gradients_of

    def on_one_device(parameters, window, carry, weights, noise, terms):
        if noise is not None:
            noise = noise.replace(part=jax.lax.axis_index(AXIS), parts=count)
        # A mean over all rows is the mean of the devices' means.
        terms = {name: factor / count if name in MEANS else factor for name, factor in terms.items()}
        gradients, carry, nats = gradients_of(parameters, window, carry, weights, noise, terms)
        return jax.lax.psum(gradients, AXIS), carry, nats

    arguments = (_WHOLE, _COLUMNS, _ROWS, _COLUMNS, _WHOLE, _WHOLE)
    results = (_WHOLE, _ROWS, _COLUMNS)
    # check_vma rejects loops that start from constants. It is not needed, because gradients are taken inside.
    return jax.shard_map(on_one_device, mesh=make_mesh(count), in_specs=arguments, out_specs=results, check_vma=False)


def constrain(count: int, state):
    """Gives a state the layout of `place`: a step then returns the layout that it receives and compiles only once."""
    return state if count == 1 else jax.lax.with_sharding_constraint(state, _shardings(count, state))


# --- Between the devices and the host ---------------------------------------------------------------------------------


def _shardings(count: int, state):
    """A NamedSharding for each field of a state, a NamedTuple."""
    mesh = make_mesh(count)
    return type(state)(*(NamedSharding(mesh, _ROWS if name == SPLIT else _WHOLE) for name in state._fields))


def place(count: int, state):
    """Copies the state to the devices: its carry split, everything else replicated."""
    return state if count == 1 else _copy(state, _shardings(count, state))


def replicate(count: int, x):
    """Copies the arrays of a pytree x to every device."""
    return x if count == 1 else _copy(x, NamedSharding(make_mesh(count), _WHOLE))


def gather(count: int, state):
    """Gathers the full state on the first device of every process. All processes must call it."""
    return local(count, state._replace(**{SPLIT: replicate(count, getattr(state, SPLIT))}))


def local(count: int, x):
    """Returns replicated arrays x (a pytree) as arrays of this process's first device alone. Copies nothing."""
    return x if count == 1 else jax.tree.map(lambda leaf: leaf.addressable_data(0), x)


def _copy(x, shardings):
    """Copies with jit, because device_put cannot reach devices of other processes."""
    return jax.jit(_identity, out_shardings=shardings)(x)


def _identity(x):  # a module-level function, so that jit compiles each pair of layouts once
    return x


# --- Several processes ------------------------------------------------------------------------------------------------


def is_first() -> bool:
    """Whether this is process 0, which writes all files."""
    return jax.process_index() == 0


def first_does(function: Callable):
    """Calls function() in process 0 only. All processes wait for it, and its UserError is raised in all of them."""
    if jax.process_count() == 1:
        return function()
    reason = ""
    if is_first():
        try:
            function()
        except UserError as error:
            reason = str(error)
    message = np.frombuffer(reason.encode()[:1000].ljust(1000), np.uint8)
    reason = bytes(np.asarray(multihost_utils.broadcast_one_to_all(message))).decode(errors="ignore").strip()
    if reason:
        raise UserError(reason)
    return None


def as_first(value: float) -> float:
    """Returns process 0's value, bit for bit, in every process, so that all processes make the same decision."""
    sent = np.frombuffer(np.float64(value).tobytes(), np.uint8)
    return float(np.frombuffer(np.asarray(multihost_utils.broadcast_one_to_all(sent)).tobytes(), np.float64)[0])


def check_same_step(step: int, workdir: str):
    """Raises UserError in all processes if they found checkpoints of different steps (-1: no checkpoint)."""
    found = np.asarray(multihost_utils.process_allgather(np.int32(step))).ravel().tolist()
    if len(set(found)) > 1:
        raise UserError(
            f"{workdir} must be one directory that all processes share: they found checkpoints of steps {found}"
        )
