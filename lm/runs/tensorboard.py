"""Writes scalars for TensorBoard: tensorboard/events.out.tfevents.NUMBER, one file each time a run starts or resumes.

Writes immediately, in the calling thread. tensorboardX's SummaryWriter writes in another thread; if that one dies on a
full disk, its queue fills and the run hangs.
"""

import time
from collections.abc import Mapping
from pathlib import Path

NAME = "events.out.tfevents."


class Events:
    """Appends scalars to a new file in `directory`. Raises OSError if it cannot be written."""

    def __init__(self, directory: Path, start_step: int = 0):
        """start_step: TensorBoard ignores this and later steps of earlier files; 0 deletes the earlier files."""
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.record_writer import RecordWriter

        directory.mkdir(parents=True, exist_ok=True)
        earlier = list(directory.glob(f"{NAME}*"))
        if start_step == 0:
            for path in earlier:
                path.unlink()
        # TensorBoard reads files in order of their names: each new name must be later, even if the clock went back.
        numbers = [int(path.name.removeprefix(NAME).split(".")[0]) for path in earlier]
        number = max([int(time.time()), *(n + 1 for n in numbers)])
        self._records = RecordWriter(str(directory / f"{NAME}{number:010}"))
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if start_step:
            self._add(Event(step=start_step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, scalars: Mapping[str, float]):
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._add(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def _add(self, event):
        self._records.write(event.SerializeToString())
        self._records._writer.flush()  # RecordWriter.flush waits for the disk, too

    def close(self):
        self._records.close()
