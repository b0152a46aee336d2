"""Writes scalars for TensorBoard: tensorboard/events.out.tfevents.NUMBER, one file each time a run starts or resumes.

Writes immediately, in the calling thread. TensorBoard's own EventFileWriter writes in another thread; if that one dies
on a full disk, its queue fills and the run hangs.
"""

import time
from collections.abc import Mapping
from pathlib import Path

NAME = "events.out.tfevents."


class Events:
    """Appends scalars to a new file in `directory`, which the first write creates. Raises OSError if it cannot."""

    def __init__(self, directory: Path, start_step: int = 0):
        """start_step: TensorBoard ignores this and later steps of earlier files; 0 deletes the earlier files."""
        self._directory, self._start_step, self._records = directory, start_step, None

    def _open(self):
        # Here: TensorBoard takes 0.2 s to import, which would delay the first step.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._directory.mkdir(parents=True, exist_ok=True)
        earlier = list(self._directory.glob(f"{NAME}*"))
        if self._start_step == 0:
            for path in earlier:
                path.unlink()
        # TensorBoard reads files in order of their names: each new name must be later, even if the clock went back.
        numbers = [int(path.name.removeprefix(NAME).split(".")[0]) for path in earlier]
        number = max([int(time.time()), *(n + 1 for n in numbers)])
        self._records = RecordWriter(open(self._directory / f"{NAME}{number:010}", "wb"))  # noqa: SIM115 (see close)
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if self._start_step:
            self._add(Event(step=self._start_step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, scalars: Mapping[str, float]):
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        if self._records is None:
            self._open()
        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._add(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _add(self, event):
        self._records.write(event.SerializeToString())
        self._records.flush()

    def close(self):
        if self._records is not None:
            self._records.close()
