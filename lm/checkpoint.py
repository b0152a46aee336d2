"""Checkpoints: everything that decides the next step, written atomically through orbax.

    <workdir>/checkpoints/last/<step>/    the newest steps, to continue from
    <workdir>/checkpoints/best/<step>/    the best by validation

A save copies the state to the host and returns; a single background thread writes it. Orbax writes
into a temporary directory and renames it, so that a kill at any moment leaves the earlier steps.

Each step holds two items: `state`, the bytes of all leaves one after another as a single array, and
`record`, JSON with the caller's `extra`, the layout of those bytes ([path, shape, dtype, PRNG
implementation] by leaf), and a SHA-256 over all of it, which restore() checks. One array, because
orbax takes milliseconds for each: saving a small LSTM costs 20 ms so and 50 ms leaf by leaf.
"""

import collections
import hashlib
import json
import logging
import math
import shutil
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lm.errors import UserError, first_line

_PENDING = 2  # saves in flight before save() waits, so that memory holds that many host copies


# Orbax numbers its saves for the whole process: two at once, of two runs, would take each other's directories.
_ORBAX = threading.Lock()


class Checkpoints:
    """Saves and restores (state, extra) under `workdir`/checkpoints; use as a context manager.

    Args:
        workdir: the run's directory.
        keep: newest steps kept in each of last/ and best/. With 2 a damaged newest one still leaves
            another.
    """

    def __init__(self, workdir, keep: int = 2):
        if keep < 1:
            raise UserError(f"checkpoint.keep must be at least 1, not {keep}")
        self._root = Path(workdir).absolute() / "checkpoints"
        self._keep = keep
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: collections.deque[Future] = collections.deque()
        self._orbax = None

    def save(self, step: int, state, extra: dict) -> None:
        """Saves as the newest step to continue from.

        Args:
            step: >= 0. Steps at or after it that are still there are replaced: they belong to a
                history that this run has left.
            state: pytree of arrays, typed PRNG keys among them; may be donated once this returns.
            extra: what JSON can hold (tuples come back as lists; infinity and nan are allowed).

        Raises:
            UserError: this save or an earlier one could not be written (disk full).
        """
        self._save("last", step, state, extra)

    def save_best(self, step: int, state, extra: dict) -> None:
        """Saves as the best so far; otherwise as save()."""
        self._save("best", step, state, extra)

    def restore(self, template, which: str = "last"):
        """The newest sound checkpoint, or None when there is none.

        Args:
            template: a pytree of the same structure, shapes and dtypes (arrays or, but for PRNG
                keys, jax.ShapeDtypeStruct).
            which: 'last' or 'best'.

        Returns:
            (state, extra, step): state of template's structure, bitwise as it was saved.

        Raises:
            UserError: the checkpoint is of another model (names the leaves), or all are damaged.
        """
        self.wait()
        directory = self._root / which
        steps = _steps(directory)
        for step in reversed(steps):
            try:
                packed, layout, extra = self._read(directory / str(step))
            except Exception as error:  # orbax, tensorstore and json each raise their own kinds
                print(f"warning: checkpoint {directory / str(step)} is damaged ({first_line(error)}): "
                      "trying the one before it", file=sys.stderr, flush=True)  # fmt: skip
                continue
            return _unpack(template, packed, layout, directory / str(step)), extra, step
        if steps:
            raise UserError(f"every checkpoint in {directory} is damaged: choose a new --workdir")
        return None

    def wait(self) -> None:
        """Returns when all that was saved is on disk; raises UserError where it could not be."""
        while self._pending:
            self._finish_oldest()

    def close(self) -> None:
        """Waits for all saves and stops the writer; safe to call twice."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()

    # ------------------------------------------------------------------------------------ inside

    def _save(self, which: str, step: int, state, extra: dict) -> None:
        packed, layout = _pack(state)
        extra_text = json.dumps(extra, sort_keys=True)  # now: the caller may change it later
        while len(self._pending) >= _PENDING:
            self._finish_oldest()
        job = (self._write, self._root / which, int(step), packed, layout, extra_text)
        self._pending.append(self._writer.submit(*job))

    def _finish_oldest(self) -> None:
        try:
            self._pending.popleft().result()
        except UserError:
            raise
        except Exception as error:  # tensorstore reports a full disk as a ValueError
            raise UserError(f"cannot write a checkpoint in {self._root}: {first_line(error)}") from error

    def _write(self, directory: Path, step: int, packed, layout: list, extra: str) -> None:
        import orbax.checkpoint as ocp

        directory.mkdir(parents=True, exist_ok=True)
        for path in directory.iterdir():
            if not path.name.isdigit():  # left half written by a process that was killed
                shutil.rmtree(path, ignore_errors=True)
        digest = _digest(packed, layout, extra)
        record = {"extra": json.loads(extra), "layout": layout, "sha256": digest}
        items = ocp.args.Composite(state=ocp.args.ArraySave(packed), record=ocp.args.JsonSave(record))
        with _ORBAX:
            self._checkpointer().save(directory / str(step), items, force=True)
        # Only now that the new one is whole may others go.
        steps = _steps(directory)
        earlier = [other for other in steps if other <= step]
        for other in set(steps) - set(earlier[-self._keep :]):
            shutil.rmtree(directory / str(other))

    def _read(self, path: Path):
        """(packed [bytes] uint8, layout, extra); any exception means damage."""
        import orbax.checkpoint as ocp

        items = ocp.args.Composite(
            state=ocp.args.ArrayRestore(ocp.RestoreArgs(restore_type=np.ndarray)),
            record=ocp.args.JsonRestore(),
        )
        step = self._checkpointer().restore(path, items)
        packed, record = np.asarray(step["state"]), step["record"]
        layout, extra = record["layout"], record["extra"]
        if _digest(packed, layout, json.dumps(extra, sort_keys=True)) != record["sha256"]:
            raise ValueError("its checksum does not match its content")
        return packed, layout, extra

    def _checkpointer(self):
        import orbax.checkpoint as ocp

        if self._orbax is None:
            logging.getLogger("absl").addFilter(_is_worth_saying)
            # Orbax would have all processes of jax.distributed meet at each save; here each works alone.
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
            self._orbax = ocp.Checkpointer(handler, multiprocessing_options=alone)
        return self._orbax


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """Orbax warns at each save that there was nothing to merge, which is how it should be here."""
    return "Skipping merge of OCDBT" not in str(record.msg)


def _steps(directory: Path) -> list[int]:
    """The steps that were written whole, in order."""
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


def _is_key(leaf) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _describe(leaf) -> list:
    """[shape, dtype, PRNG implementation or None] of a leaf as it is stored; key data is uint32."""
    if _is_key(leaf):
        data = jax.eval_shape(jax.random.key_data, leaf)
        return [list(data.shape), str(data.dtype), str(leaf.dtype)]
    return [list(leaf.shape), str(leaf.dtype), None]


def _name(path) -> str:
    """'params.cell.w'"""
    return jax.tree_util.keystr(path, simple=True, separator=".") or "state"


def _pack(state) -> tuple[np.ndarray, list]:
    """(the bytes of all leaves [bytes] uint8, [[path, shape, dtype, PRNG implementation], ...])."""
    pairs, _ = jax.tree_util.tree_flatten_with_path(state)
    layout = [[_name(path), *_describe(leaf)] for path, leaf in pairs]
    raw = jax.device_get([jax.random.key_data(x) if _is_key(x) else x for _, x in pairs])
    # concatenate copies, and must: on CPU these share memory with arrays that may be donated next.
    parts = [np.ascontiguousarray(x).reshape(-1).view(np.uint8) for x in raw]
    return np.concatenate(parts), layout


def _unpack(template, packed: np.ndarray, layout: list, path: Path):
    """`template` with its leaves replaced by those in `packed`; refuses where the two differ."""
    pairs, treedef = jax.tree_util.tree_flatten_with_path(template)
    wanted = [[_name(key), *_describe(leaf)] for key, leaf in pairs]
    if wanted != layout:
        raise UserError(f"{path} is of another model: {_differences(layout, wanted)}")
    leaves, start = [], 0
    for (_, leaf), (_, shape, dtype, _) in zip(pairs, layout, strict=True):
        dtype = jnp.dtype(dtype)
        end = start + math.prod(shape) * dtype.itemsize
        # A copy: an array made over NumPy's own memory could not be donated.
        value = jnp.array(packed[start:end].view(dtype).reshape(shape))
        if _is_key(leaf):
            value = jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf))
        leaves.append(value)
        start = end
    return jax.tree_util.tree_unflatten(treedef, leaves)


def _differences(found: list, wanted: list, shown: int = 4) -> str:
    """What a user needs to see of two layouts that are not equal."""

    def show(layout, name):
        if name not in layout:
            return "absent"
        shape, dtype, key = layout[name]
        return f"{key or dtype}{shape}"

    found, wanted = ({name: rest for name, *rest in layout} for layout in (found, wanted))
    names = sorted(n for n in found.keys() | wanted.keys() if found.get(n) != wanted.get(n))
    lines = [f"{n} is {show(found, n)} there, {show(wanted, n)} here" for n in names[:shown]]
    if len(names) > shown:
        lines.append(f"and {len(names) - shown} more")
    return "; ".join(lines) or "its leaves come in another order"


def _digest(packed: np.ndarray, layout: list, extra: str) -> str:
    """SHA-256 over bytes, layout and `extra`."""
    digest = hashlib.sha256(json.dumps([layout, extra]).encode())
    digest.update(packed)
    return digest.hexdigest()
