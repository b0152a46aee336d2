"""Writes for TensorBoard: tensorboard/train/ and tensorboard/valid/, two runs whose scalars share a chart.

Each holds events.out.tfevents.NUMBER, one file each time a run starts or resumes. Writes immediately, in the calling
thread: TensorBoard's own EventFileWriter writes in another thread; if that one dies on a full disk, its queue fills and
the run hangs.
"""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

NAME = "events.out.tfevents."

# Column of metrics.jsonl -> (run, tag). The part of a tag before the slash is its group. Others: ("train", other/NAME).
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
    """Appends to new files below `directory`, which the first write creates. Raises OSError if it cannot."""

    def __init__(self, directory: Path, start_step: int = 0):
        """start_step: TensorBoard ignores this and later steps of earlier files; 0 deletes the earlier files."""
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
            elif self._runs[run].has_earlier:  # so that steps to be made again are shown once from now on
                self._runs[run].open()

    def write_texts(self, step: int, texts: list[str]):
        """Shows sampled texts under Text, each as a block of code, so that none is read as Markdown."""
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
        with contextlib.ExitStack() as both:  # closes the second if the first fails
            for events in self._runs.values():
                both.callback(events.close)


class Events:
    """The event files of one directory."""

    def __init__(self, directory: Path, start_step: int):
        self._directory, self._start_step, self._records = directory, start_step, None

    @property
    def has_earlier(self) -> bool:
        """Whether an earlier process has written events of this run."""
        return self._start_step > 0 and self._directory.is_dir()

    def open(self):
        """Begins a new file, unless this process has one; it tells TensorBoard which earlier steps to ignore."""
        self._records = self._records or self._open()

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
        records = RecordWriter(open(self._directory / f"{NAME}{number:010}", "wb"))  # noqa: SIM115 (see close)
        _add(records, Event(wall_time=time.time(), file_version="brain.Event:2"))
        if self._start_step:
            _add(records, Event(step=self._start_step, session_log=SessionLog(status=SessionLog.START)))
        return records

    def write(self, step: int, summary):
        from tensorboard.compat.proto.event_pb2 import Event

        self.open()
        _add(self._records, Event(wall_time=time.time(), step=step, summary=summary))

    def close(self):
        if self._records is not None:
            self._records.close()


def _add(records, event):
    records.write(event.SerializeToString())
    records.flush()
