"""Saves and restores checkpoints: the full training state, written atomically through orbax.

    <workdir>/checkpoints/last/<step>/    the newest steps, to resume from
    <workdir>/checkpoints/best/<step>/    the best by validation

A save copies the state to the host and returns; one background thread writes it. Orbax writes into a temporary
directory and renames it, so a kill at any moment leaves the earlier steps intact.

Each step holds two items. `state` is one array: the concatenated bytes of all leaves. `record` is JSON: the caller's
`extra`, the layout of the bytes ([path, shape, dtype, PRNG implementation] of each leaf), the step and two SHA-256
hashes. `record_sha256` covers layout and `extra`; `sha256` also covers the bytes. restore() checks `record_sha256` and
the layout before it reads the array, so an untrusted checkpoint cannot allocate more memory than the model needs.
The state is one array because orbax is slow per array: a small LSTM takes 20 ms as one array, 50 ms leaf by leaf.
"""

import collections
import contextlib
import functools
import hashlib
import json
import logging
import math
import re
import shutil
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lm.errors import UserError, first_line
from lm.runs.files import DISK_ERRORS

_STEP = re.compile(r"0|[1-9][0-9]*")  # the name of a step's directory; str.isdigit would accept ²
_HALF_WRITTEN = re.compile(r"\d+\.orbax-checkpoint-tmp.*")  # orbax's name for an unfinished step
_PENDING = 2  # unfinished saves, each with a host copy of the state, before save() waits
# Orbax numbers saves per process: two runs of one process that save at once would mix up their directories.
_ORBAX = threading.Lock()


class Checkpoints(contextlib.AbstractContextManager):
    """Saves and restores (state, extra) under `workdir`/checkpoints; use as a context manager.

    keep: number of steps kept in last/ and in best/. With 2, one remains if the newest is damaged. best/ also keeps,
    for each step in last/, the best checkpoint up to that step, for rollbacks.
    """

    def __init__(self, workdir, keep: int = 2):
        self._root = Path(workdir).resolve() / "checkpoints"  # tensorstore cannot read paths with ..
        self._keep = keep
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: collections.deque[Future] = collections.deque()

    def save(self, step: int, state, extra: dict, which: str = "last") -> None:
        """Saves a step. Raises UserError if an earlier save failed (disk full).

        step: >= 0. Replaces existing steps at or after it: a rollback has discarded them.
        state: pytree of arrays, including typed PRNG keys. May be donated once this returns.
        extra: a JSON value (tuples come back as lists; infinity and nan are allowed).
        which: "last", the newest step to resume from, or "best", the best so far.
        """
        packed, layout = _pack(state)
        extra_text = _text(extra)  # now, because the caller may change it later
        while len(self._pending) >= _PENDING:
            self._finish_oldest()
        path = self._root / which
        self._pending.append(self._writer.submit(self._write, path, int(step), packed, layout, extra_text))

    def restore(self, template, which: str = "last", before: float = math.inf):
        """Reads the newest undamaged checkpoint; None if no checkpoint exists.

        template: a pytree of the same structure, shapes and dtypes (arrays or, except PRNG keys, jax.ShapeDtypeStruct)
        which: 'last' or 'best'; before: ignore this step and later ones
        Returns (state, extra, step). The state has the template's structure and is bitwise equal to the saved one.
        Raises UserError if the checkpoint belongs to another model (names the leaves), or every checkpoint is damaged.
        """
        self.wait()
        directory = self._root / which
        listed = _steps(directory)
        steps = [step for step in listed if step < before]
        for step in reversed(steps):
            path = directory / str(step)
            try:
                packed, layout, extra = self._read(path, template)
            except UserError:
                raise
            except Exception as error:  # orbax, tensorstore and json each raise their own types
                if _steps(directory)[-1:] != listed[-1:]:  # a training process has saved a newer one meanwhile
                    return self.restore(template, which, before)
                warning = f"warning: checkpoint {path} is damaged ({first_line(error)}): trying the one before it"
                print(warning, file=sys.stderr, flush=True)
                continue
            return _unpack(template, packed, layout), extra, step
        if steps:
            raise UserError(f"every checkpoint in {directory} is damaged: train in a new directory")
        return None

    def forget_best_after(self, step: int) -> None:
        """Removes best checkpoints after `step`, which a rollback has discarded."""
        self.wait()
        directory = self._root / "best"
        for other in _steps(directory):
            if other > step:
                shutil.rmtree(directory / str(other))

    def wait(self) -> None:
        """Waits until all saves are on disk. Raises UserError if one failed."""
        while self._pending:
            self._finish_oldest()

    def close(self) -> None:
        """Waits for all saves and stops the writer; safe to call twice."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def __exit__(self, *unused):
        self.close()

    # --- Writing and reading one step

    def _finish_oldest(self) -> None:
        try:
            self._pending.popleft().result()
        except UserError:
            raise
        except Exception as error:  # tensorstore reports a full disk as a ValueError
            reason = next((known for known in DISK_ERRORS if known in str(error)), first_line(error))
            raise UserError(f"cannot write a checkpoint in {self._root}: {reason}") from error

    def _write(self, directory: Path, step: int, packed, layout: list, extra: str) -> None:
        import orbax.checkpoint as ocp

        if not self._root.parent.is_dir():
            raise UserError(f"{self._root.parent} was deleted or moved during training: the run stops")
        directory.mkdir(parents=True, exist_ok=True)
        for path in directory.iterdir():
            if _HALF_WRITTEN.fullmatch(path.name):  # left by a killed process
                shutil.rmtree(path, ignore_errors=True)
        record = {"extra": json.loads(extra), "layout": layout, "step": step}
        record |= {"record_sha256": _digest(layout, extra), "sha256": _digest(layout, extra, packed)}
        items = ocp.args.Composite(state=ocp.args.ArraySave(packed), record=ocp.args.JsonSave(record))
        with _ORBAX:
            self._checkpointer.save(directory / str(step), items, force=True)
        # Older steps are removed only after the new one is complete.
        steps = _steps(directory)
        earlier = [other for other in steps if other <= step]
        kept = set(earlier[-self._keep :])
        if directory.name == "best":
            kept |= {max((b for b in earlier if b <= last), default=step) for last in _steps(self._root / "last")}
        for other in set(steps) - kept:
            shutil.rmtree(directory / str(other))

    def _read(self, path: Path, template) -> tuple[np.ndarray, list, dict]:
        """Returns (bytes of all leaves, layout, extra). Raises UserError for another model; other errors mean
        damage."""
        import orbax.checkpoint as ocp

        def item(**arguments):
            return self._checkpointer.restore(path, ocp.args.Composite(**arguments))

        record = item(record=ocp.args.JsonRestore())["record"]
        layout, extra = record["layout"], record["extra"]
        step = int(path.name)
        if record.get("step", step) != step:  # older versions did not write the step
            raise ValueError(f"it was saved at step {record['step']} and renamed")
        # Older versions did not write record_sha256; the check of sha256 below finds their damage.
        if record.get("record_sha256") not in (None, _digest(layout, _text(extra))):
            raise ValueError("its record's checksum does not match its content")
        wanted = _layout(template)
        if layout != wanted:
            raise UserError(f"{path} belongs to another model: {_differences(layout, wanted)}")
        _check_stored_size(path, sum(_size(shape, dtype) for _, shape, dtype, _ in layout))
        packed = np.asarray(
            item(state=ocp.args.ArrayRestore(restore_args=ocp.RestoreArgs(restore_type=np.ndarray)))["state"]
        )
        if _digest(layout, _text(extra), packed) != record["sha256"]:
            raise ValueError("its checksum does not match its content")
        return packed, layout, extra

    @functools.cached_property
    def _checkpointer(self):
        import orbax.checkpoint as ocp

        logging.getLogger("absl").addFilter(_is_useful)
        # By default all processes of jax.distributed synchronise at each save; here each process saves alone.
        alone = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(),
            active_processes={jax.process_index()},
            barrier_sync_key_prefix=f"process_{jax.process_index()}",
        )
        handler = ocp.CompositeCheckpointHandler(
            state=ocp.ArrayCheckpointHandler(),
            record=ocp.JsonCheckpointHandler(multiprocessing_options=alone),
            composite_options=ocp.CompositeOptions(multiprocessing_options=alone),
        )
        return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _is_useful(record: logging.LogRecord) -> bool:
    """False for two kinds of orbax messages: the warning at each save that there is nothing to merge, and tracebacks of
    failed saves, which `Checkpoints` reports in one line."""
    return not any(text in str(record.msg) for text in ("Skipping merge of OCDBT", "_SignalingThread.run() raised"))


def has_checkpoints(workdir: str | Path) -> bool:
    """Whether a run in `workdir` has a checkpoint to resume from."""
    return bool(_steps(Path(workdir) / "checkpoints" / "last"))


def _steps(directory: Path) -> list[int]:
    """The completely written steps, ascending."""
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if _STEP.fullmatch(path.name) and path.is_dir())


def _is_key(leaf) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _layout(tree) -> list:
    """[path such as 'parameters.cell.w', shape, dtype, PRNG implementation or None] of each leaf as stored."""
    layout = []
    for path, leaf in jax.tree.leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "state"
        stored = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf  # keys are stored as uint32 data
        layout.append([name, list(stored.shape), str(stored.dtype), str(leaf.dtype) if _is_key(leaf) else None])
    return layout


def _pack(state) -> tuple[np.ndarray, list]:
    """Returns (bytes of all leaves, `_layout`)."""
    raw = jax.device_get([jax.random.key_data(x) if _is_key(x) else x for x in jax.tree.leaves(state)])
    # concatenate must copy: on a CPU these arrays share memory with the state, which may be donated next.
    parts = [np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in raw]
    return np.concatenate(parts), _layout(state)


def _check_stored_size(path: Path, size: int):
    """Raises ValueError unless the array's metadata, which tensorstore trusts, declare `size` bytes in one chunk."""
    import tensorstore

    place = {"driver": "file", "path": str(path / "state" / "checkpoint")}
    stored = tensorstore.open({"driver": "zarr", "kvstore": place}).result()
    piece = stored.chunk_layout.read_chunk.shape
    if (stored.shape, piece, stored.dtype.name) != ((size,), (size,), "uint8"):
        found = f"{stored.dtype.name}{list(stored.shape)} in chunks of {list(piece or ())}"
        raise ValueError(f"its array is {found}, not uint8[{size}] in one chunk")


def _unpack(template, packed: np.ndarray, layout: list):
    """Replaces the template's leaves by those in `packed`. layout: that of `packed` and of the template"""
    wanted, treedef = jax.tree.flatten(template)
    leaves, start = [], 0
    for leaf, (_, shape, dtype, _) in zip(wanted, layout, strict=True):
        end = start + _size(shape, dtype)
        # Copied: an array that shares NumPy's memory could not be donated.
        value = jnp.array(packed[start:end].view(jnp.dtype(dtype)).reshape(shape))
        if _is_key(leaf):
            value = jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf))
        leaves.append(value)
        start = end
    return jax.tree_util.tree_unflatten(treedef, leaves)


def _size(shape: list, dtype: str) -> int:
    """Size of a leaf in bytes."""
    return math.prod(shape) * jnp.dtype(dtype).itemsize


def _differences(found: list, wanted: list) -> str:
    """Describes the differences of two layouts."""
    there, here = ({name: f"{key or dtype}{shape}" for name, shape, dtype, key in layout} for layout in (found, wanted))
    names = sorted(n for n in there.keys() | here.keys() if there.get(n) != here.get(n))
    lines = [f"{n} is {there.get(n, 'absent')} there, {here.get(n, 'absent')} here" for n in names[:4]]
    if len(names) > 4:
        lines.append(f"and {len(names) - 4} more")
    return "; ".join(lines) or "its leaves are in another order"


def _text(extra: dict) -> str:
    return json.dumps(extra, sort_keys=True)


def _digest(layout: list, extra: str, packed: np.ndarray | None = None) -> str:
    """SHA-256 of layout and `extra`, and of the bytes if given."""
    digest = hashlib.sha256(json.dumps([layout, extra]).encode())
    if packed is not None:
        digest.update(packed.data)
    return digest.hexdigest()
