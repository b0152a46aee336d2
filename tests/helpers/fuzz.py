"""Mutations of files, and what reads each kind of file: whatever a stranger's file holds, its reader opens it or raises
UserError with one line.

    TARGETS     {name: function (directory) -> Target}
    try_often   many mutations (tests/helpers/mutations.py) of the files of a target, each read
"""

import contextlib
import functools
import io
import json
import random
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import hypothesis
import jax
import numpy as np
from hypothesis import strategies as st
from safetensors.numpy import save_file

import lm
from configs import loading
from experiments import compare, export, record, sweep
from experiments.ledger import claims, report, storage
from experiments.ledger.contents import derive
from experiments.ledger.records import RECORDS, RESULTS, load_records, mismatches, write_record
from experiments.peers import records as speed_records
from experiments.peers.speed_page import lanes_section
from experiments.sweeps import pictures, study
from experiments.sweeps.progress import Progress
from lm.data.text import plain_text
from lm.data.vectors import read_vectors
from lm.errors import UserError
from lm.model import weights
from lm.runs import saved_config
from lm.runs.checkpoint import Checkpoints
from lm.runs.workdir import prepare_workdir
from lm.training.loop import Trainer, train
from lm.training.recorder import Recorder
from lm.training.setup import make_setup
from tests.helpers import tiny
from tests.helpers.mutations import mutated

SECONDS, MEGABYTES = 10.0, 1000  # what reading one small file may take


class Target(NamedTuple):
    """files: sound ones, each of which is mutated in turn; read: the reader, of all of them where they lie.

    weight: how many mutations it has for one of the others'
    """

    files: tuple[Path, ...]
    read: Callable[[], object]
    weight: float = 1.0


# --- Trying ---------------------------------------------------------------------------------------------------------


def try_often(target: Target, times: int, tell: Callable[[str], object], seed: int = 0):
    """Reads mutations that hypothesis draws, and shrinks one that fails. tell: gets each refusal, "" if it opened."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=times, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(st.randoms(use_true_random=False))
    def try_one(rng):
        tell(try_once(target, rng))

    try_one()


def try_once(target: Target, rng: random.Random) -> str:
    """Mutates a file of the target, reads, and puts the file back. What the refusal said, "" where it was opened.

    Raises AssertionError where anything else came of it.
    """
    path = rng.choice(target.files)
    sound = path.read_bytes()
    bad = b"" if rng.random() < 0.02 else mutated(sound, rng, path.suffix in (".json", ".jsonl"))
    began, before = time.monotonic(), resident_megabytes()
    try:
        if rng.random() < 0.02:
            path.unlink()
            path.mkdir()
        else:
            path.write_bytes(bad)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            target.read()
        said = ""
    except UserError as error:
        said = str(error)
        assert said.strip(), f"{path.name}: an empty message"
        assert len(said) < 2000, f"{path.name}: a message of {len(said)} characters"
    except BaseException as error:
        raise AssertionError(f"{path.name}: {type(error).__name__}: {str(error)[:300]} of {bad[:200]!r}") from error
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.write_bytes(sound)
    assert time.monotonic() - began < SECONDS, f"{path.name}: {time.monotonic() - began:.0f} s for {bad[:200]!r}"
    assert resident_megabytes() - before < MEGABYTES, f"{path.name}: too much memory for {bad[:200]!r}"
    return said


def resident_megabytes() -> float:
    """The process's peak."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- Targets --------------------------------------------------------------------------------------------------------


def settings():
    return tiny.config(train__steps=4, checkpoint__every_steps=4, sample__length=4)


def weights_file(directory: Path) -> Target:
    """A stranger's weights, --experiment=import."""
    model, parameters = tiny.model()
    path = directory / "model.safetensors"
    weights.save_weights(str(path), parameters, tiny.corpus().vocabulary)
    return Target((path,), lambda: weights.load_weights(str(path), model, tiny.corpus().vocabulary))


def torch_weights(directory: Path) -> Target:
    """A state dict of word_language_model."""
    model, _ = tiny.model(model__input="embedding", model__embedding_size=3)
    rng, path = np.random.default_rng(0), directory / "model.safetensors"
    shapes = {
        "encoder.weight": (5, 3),
        "rnn.weight_ih_l0": (12, 3),
        "rnn.weight_hh_l0": (12, 3),
        "rnn.bias_ih_l0": (12,),
        "rnn.bias_hh_l0": (12,),
        "decoder.weight": (5, 3),
        "decoder.bias": (5,),
    }
    save_file({name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}, path)
    return Target((path,), lambda: weights.load_weights(str(path), model, tiny.corpus().vocabulary))


def vocabulary_file(directory: Path) -> Target:
    """The vocabulary beside it, one token a line."""
    path, symbols = directory / "tokens.txt", tuple("abcdef")
    path.write_text("\n".join(reversed(symbols)) + "\n")
    return Target((path,), lambda: weights.vocabulary_order(str(path), symbols))


def checkpoint(directory: Path) -> Target:
    """Every file of a checkpoint, read by a run that goes on from it. What is opened is what was saved, bit for bit."""
    train(make_setup(settings(), tiny.corpus()), str(directory))
    files = [path for path in sorted((directory / "checkpoints" / "last").rglob("*")) if path.is_file()]
    template = Trainer(Recorder(make_setup(settings(), tiny.corpus()), str(directory)))
    template.recorder.checkpoints.close()
    saved = json.loads(json.dumps(template.recorder.record()))

    def read():
        with Checkpoints(directory) as checkpoints:
            state, extra, _ = checkpoints.restore(template.state)
        assert extra == saved
        for found, expected in zip(jax.tree.leaves(state), jax.tree.leaves(template.state), strict=True):
            assert bool(jax.numpy.array_equal(found, expected))

    return Target(tuple(files), read, weight=0.8)


def saved_beside_the_state(directory: Path) -> Target:
    """What a checkpoint says beside the state, under a checksum that is right: by whoever wrote it on purpose."""
    trainer = Trainer(Recorder(make_setup(settings(), tiny.corpus()), str(directory)))
    trainer.recorder.checkpoints.close()
    path = directory / "extra.json"
    path.write_text(json.dumps(trainer.recorder.record()))

    def read():
        try:
            extra = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError):  # orbax reads it: see `checkpoint`
            return
        trainer.recorder.checkpoints.restore = lambda *arguments: (trainer.state, extra, 4)
        trainer.recorder.restore()

    return Target((path,), read)


def finished_run(directory: Path) -> Target:
    """summary.json, metrics.jsonl and test_log.jsonl as `record` and `compare` read them."""
    summary = {key: value for key, value in load_records()[0].items() if key not in ("curve", "test_scores")}
    rows = [{"step": step, "epoch": step / 3, "loss": 2.0, "valid_protocol": "exact"} for step in range(4)]
    paths = tuple(directory / name for name in ("summary.json", "metrics.jsonl", "test_log.jsonl"))
    for path, lines in zip(paths, ([summary], rows, rows[:2]), strict=True):
        path.write_text("\n".join(map(json.dumps, lines)) + "\n")

    def read():
        made = record.make_record(directory)
        found = compare.FinishedRun("a", directory, {}, made)
        compare.metric_table([found, found])

    return Target(paths, read, weight=2)


def opened_run(directory: Path) -> Target:
    """What `lm.open_run` reads of a run, apart from its checkpoints."""
    with contextlib.redirect_stdout(io.StringIO()):
        train(make_setup(settings(), tiny.corpus()), directory)
    return Target((directory / "config.json", directory / "vocabulary.json"), lambda: lm.open_run(directory))


def exported_run(directory: Path) -> Target:
    """An export."""
    opened_run(directory / "run")
    run = lm.open_run(directory / "run")
    made = Path(export.run(run.config, str(directory / "run"), to=str(directory / "export")))
    return Target((made / "config.json", made / "model.safetensors"), lambda: lm.open_run(made))


def word_vectors(directory: Path) -> Target:
    """A text file of word vectors."""
    path = directory / "vectors.txt"
    path.write_text("3 2\na 1 2\nb 0.5 -1e-3\n\u00e4 1 2\n", encoding="utf-8")
    return Target((path,), lambda: read_vectors(str(path), tiny.corpus().vocabulary, 2))


def config_file(directory: Path) -> Target:
    """config.json, which a run that goes on and `compare` read."""
    prepare_workdir(directory, settings())

    def read():
        prepare_workdir(directory, settings())
        saved_config.get_config(str(directory / "config.json"))

    return Target((directory / "config.json",), read)


def ledger(directory: Path) -> Target:
    """A ledger and one record, `reproduce --check`."""
    name = "text8_lstm_fused.text8_prefix.seed0.json"
    (directory / RECORDS).mkdir()
    shutil.copy(RESULTS / RECORDS / name, directory / RECORDS / name)
    configs = [claim for claim in claims.all_claims() if claim.config.name == "text8/lstm_fused"]
    storage.renew(directory, configs)
    check = lambda: storage.check(directory, configs)  # noqa: E731
    check()
    paths = (directory / "ledger.json", directory / RECORDS / name, directory / "report.md")
    return Target(paths, check, weight=0.15)  # each renders both reports


def record_file(directory: Path) -> Target:
    """A record, and what is derived from it."""
    name = "text8_lstm_fused.text8_prefix.seed0.json"
    shutil.copy(RESULTS / RECORDS / name, directory / name)
    configs = [claim for claim in claims.all_claims() if claim.config.name == "text8/lstm_fused"]

    def read():
        records = load_records(directory)
        found = derive(records, configs, {})
        report.render_markdown(found, records)
        for each in records:
            mismatches(each, configs)
            write_record(each, directory / "written")

    return Target((directory / name,), read, weight=2)


def sweep_record(directory: Path) -> Target:
    """sweep.json, whose name becomes a path."""
    (directory / "sweep.json").write_text(json.dumps({"name": "sweeps/a", "trials": []}))
    for name in ("config.json", "report.html"):
        (directory / name).write_text("{}")
    target = directory / "deep" / "in" / "here"

    def read():
        record.put_sweep_on_record(directory, target)
        written = {path.name for path in target.rglob("*") if path.is_file()}
        assert written <= {"sweep.json", "config.json", "report.html"}

    return Target((directory / "sweep.json",), read)


def sweep_database(directory: Path) -> Target:
    """The database of a sweep's trials."""
    config = loading.load(str(loading.CONFIGS / "sweeps/synthetic.py"))
    place = study.Place(str(directory), None, f"sqlite:///{directory}/study.db", False)
    made = study.open_sweep(config, place)
    for value in (4.0, 3.0):
        trial = made.ask()
        trial.set_user_attr("worker", "there:1")
        made.study.tell(trial, value)

    def read():
        opened = study.open_sweep(config, place)
        try:
            with study.storage_errors(place):
                progress = Progress(opened.study, opened.total)
                progress.printed.clear()
                progress.update()
                sweep.summarise(opened.study, config.name)
                pictures.write_report(opened.study, directory)
        finally:
            opened.storage.engine.dispose()  # else the file that is put back would meet the old connection

    return Target((directory / "study.db",), read, weight=0.1)


def benchmark(directory: Path) -> Target:
    """A benchmark to be put on record."""
    (found,) = RESULTS.glob("benchmark.*-threads.json")
    record = json.loads(found.read_text())
    record["rows"] = record["rows"][:3]
    (directory / "benchmark.json").write_text(json.dumps(record))
    read = functools.partial(speed_records.record_benchmark, str(directory), directory / "results")
    return Target((directory / "benchmark.json",), read)


def lanes_benchmark(directory: Path) -> Target:
    """As `benchmark`, of lanes."""
    (found,) = RESULTS.glob("lanes.*-threads.json")
    shutil.copy(found, directory / "lanes_speed.json")

    def read():
        (directory / "results").mkdir(exist_ok=True)
        path = speed_records.record_lanes(str(directory), directory / "results")
        lanes_section(json.loads(path.read_text()))

    return Target((directory / "lanes_speed.json",), read)


def text_file(directory: Path) -> Target:
    """The user's own text."""
    path = directory / "text.txt"
    path.write_bytes(("Ein schöner Satz. \u2603\r\n" * 40).encode())

    def read():
        try:
            content = path.read_bytes()
        except OSError:  # lm/data/corpora.py names it
            return
        plain_text(content, "text.txt")

    return Target((path,), read)


TARGETS = {
    "weights": weights_file,
    "torch_weights": torch_weights,
    "vocabulary": vocabulary_file,
    "checkpoint": checkpoint,
    "saved_beside_the_state": saved_beside_the_state,
    "finished_run": finished_run,
    "config": config_file,
    "opened_run": opened_run,
    "exported_run": exported_run,
    "word_vectors": word_vectors,
    "ledger": ledger,
    "record": record_file,
    "sweep": sweep_record,
    "study": sweep_database,
    "benchmark": benchmark,
    "lanes_benchmark": lanes_benchmark,
    "text": text_file,
}
