"""Writes tensorboard/train/ and tensorboard/valid/. TensorBoard shows them as two curves in the same charts.

Each directory holds files events.out.tfevents.NUMBER, a new one each time the run starts or resumes. Writes happen in
the calling thread. TensorBoard's own EventFileWriter uses another thread: if this thread dies on a full disk, its queue
fills and the run hangs.
"""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = "events.out.tfevents."

# Column of metrics.jsonl -> (directory, group/name in TensorBoard). All other columns: ("train", "other/COLUMN").
TAGS = {
    "loss": ("train", "loss/nats"),
    "valid_loss": ("valid", "loss/nats"),
    "perplexity": ("train", "perplexity/reports"),
    "valid_perplexity": ("valid", "perplexity/reports"),
    "epoch_perplexity": ("train", "perplexity/epochs"),
    "running_perplexity": ("train", "perplexity/running"),
    "learning_rate": ("train", "optimiser/learning_rate"),
    "gradient_norm": ("train", "optimiser/gradient_norm"),
    "tokens_per_s": ("train", "speed/tokens_per_s"),
}


class TensorBoard:
    """Writes new event files below `directory`, created at the first write. Raises OSError if this fails."""

    def __init__(self, directory: Path, start_step: int = 0):
        """start_step: TensorBoard drops this step and later ones from older files; with 0, these are deleted."""
        self._runs = {name: Events(directory / name, start_step) for name in ("train", "valid")}

    def write(self, step: int, scalars: Mapping[str, float]):
        from tensorboard.compat.proto.summary_pb2 import Summary

        values: dict[str, list] = {name: [] for name in self._runs}
        for column, value in scalars.items():
            run, tag = TAGS.get(column, ("train", f"other/{column}"))
            values[run].append(Summary.Value(tag=tag, simple_value=value))
        for run, found in values.items():
            if found:
                self._runs[run].write(step, Summary(value=found))
            else:
                self._runs[run].drop_repeated()

    def write_texts(self, step: int, texts: list[str]):
        """Shows sampled texts under Text, each as a code block, so that TensorBoard does not render Markdown."""
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING

        blocks = ["\n".join(f"    {line}" for line in text.split("\n")).encode() for text in texts]
        tensor = TensorProto(dtype=DT_STRING, string_val=[b"\n\n---\n\n".join(blocks)])
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        value = Summary.Value(tag="samples", metadata=metadata, tensor=tensor)
        self._runs["train"].write(step, Summary(value=[value]))

    def write_hyperparameters(self, values: Mapping[str, object]):
        """Shows a config under HParams. values: {dotted key: value}"""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        shown = {key: value if isinstance(value, int | float | str) else str(value) for key, value in values.items()}
        self._runs["train"].write(0, hparams_pb(shown))

    def close(self):
        with contextlib.ExitStack() as both:  # closes the second even if the first fails
            for events in self._runs.values():
                both.callback(events.close)


class Events:
    """The event files of one directory."""

    def __init__(self, directory: Path, start_step: int):
        self._directory, self._start_step = directory, start_step
        self._records: Any = None  # a RecordWriter once the file is open

    def drop_repeated(self):
        """Makes TensorBoard drop steps that are repeated, by a new file, if an earlier process wrote events."""
        if self._start_step > 0 and self._directory.is_dir():
            self.open()

    def open(self):
        """Starts a new file if this process has none yet. The file tells TensorBoard which earlier steps to ignore."""
        if self._records is not None:
            return
        # Imported here: TensorBoard takes 0.2 s to import, which would delay the first step.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._directory.mkdir(parents=True, exist_ok=True)
        earlier = list(self._directory.glob(f"{NAME}*"))
        if self._start_step == 0:
            for path in earlier:
                path.unlink()
        # TensorBoard reads files in alphabetical order: each new name must come last, even if the clock was set back.
        numbers = [int(path.name.removeprefix(NAME).split(".")[0]) for path in earlier]
        number = max([int(time.time()), *(n + 1 for n in numbers)])
        self._records = RecordWriter(open(self._directory / f"{NAME}{number:010}", "wb"))  # noqa: SIM115 (see close)
        self._add(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if self._start_step:
            self._add(Event(step=self._start_step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, summary):
        from tensorboard.compat.proto.event_pb2 import Event

        self.open()
        self._add(Event(wall_time=time.time(), step=step, summary=summary))

    def _add(self, event):
        self._records.write(event.SerializeToString())
        self._records.flush()

    def close(self):
        if self._records is not None:
            self._records.close()
