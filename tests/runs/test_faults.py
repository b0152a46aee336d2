"""What goes wrong around a run - disk, directories, damaged files, clock - ends with one clear line or goes on, and
loses nothing: begun again, the run ends as if nothing had happened."""

import builtins
import os
import shutil
import time

import numpy as np
import pytest

import launch
import lm
import lm.runs.tensorboard
from experiments.pages.printed import print_results
from lm.errors import UserError
from lm.runs import files as files_lib
from lm.runs import lock, metrics, sampled_texts
from lm.runs.checkpoint import Checkpoints
from lm.runs.workdir import prepare_workdir
from lm.training.loop import Trainer, train
from lm.training.recorder import Recorder
from lm.training.setup import make_setup
from lm.training.step import StepMetrics
from tests.helpers.run_state import rows_of
from tests.training.test_resume import Interrupted, config, corpus, final_state, interrupt

NO_SPACE = "No space left on device"


def settings(**changes):
    return config(train__sample_every=4, **changes)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    return workdir, train(make_setup(settings(), corpus()), workdir)


def assert_goes_on(workdir, undisturbed):
    """Begun again, the run in workdir ends as the undisturbed one."""
    expected, summary = undisturbed
    again = train(make_setup(settings(), corpus()), workdir)
    assert again["results"] == summary["results"]
    assert rows_of(workdir) == rows_of(expected)
    assert (workdir / "samples.txt").read_bytes() == (expected / "samples.txt").read_bytes()
    (found, done), (wanted, _) = final_state(workdir), final_state(expected)
    assert done == 12
    for name, x in wanted.items():
        np.testing.assert_array_equal(found[name], x, err_msg=name)


def files(workdir):
    """All but the lock, which is a file without content."""
    found = sorted(path for path in workdir.rglob("*") if path.is_file() and path.name != lock.NAME)
    return {path: path.read_bytes() for path in found}


# --- Disk full ------------------------------------------------------------------------------------------------------


def full(mode="wb"):
    """A file to which the kernel writes nothing: there is no space left on its device."""
    return builtins.open("/dev/full", mode)


def fill_log(patch):
    write = metrics.MetricsLog.write

    def filled(self, row):
        if row["step"] == 9:
            self._file.close()
            self._file = full("w")
        write(self, row)

    patch.setattr(metrics.MetricsLog, "write", filled)


def fill_tensorboard(patch):
    write = lm.runs.tensorboard.Events.write

    def filled(self, step, summary):
        if step == 5:
            self._records.close()
            self._records._writer = full()
        write(self, step, summary)

    patch.setattr(lm.runs.tensorboard.Events, "write", filled)


def fill_samples(patch):
    patch.setattr(sampled_texts, "open", lambda path, mode: full(), raising=False)


def fill_checkpoints(patch):
    import orbax.checkpoint as ocp

    save = ocp.Checkpointer.save

    def filled(self, directory, *arguments, **options):
        if directory.name == "6":
            # As tensorstore says it: the reason comes after the file's name, twice.
            raise ValueError(f'RESOURCE_EXHAUSTED: Error writing "{directory}": {"x" * 300} [OS error 28: {NO_SPACE}]')
        save(self, directory, *arguments, **options)

    patch.setattr(ocp.Checkpointer, "save", filled)


def fill_summary(patch):
    def filled(path, *arguments, **options):
        return full() if ".summary.json" in str(path) else builtins.open(path, *arguments, **options)

    patch.setattr(files_lib, "open", filled, raising=False)


@pytest.mark.parametrize(
    ("fill", "named"),
    [
        (fill_log, "metrics.jsonl"),
        (fill_tensorboard, "tensorboard"),
        (fill_samples, "samples.txt"),
        (fill_checkpoints, "checkpoints"),
        (fill_summary, "summary.json"),
    ],
)
def test_a_full_disk_ends_a_run_with_one_line_and_loses_nothing(undisturbed, tmp_path, monkeypatch, fill, named):
    with monkeypatch.context() as patch:
        fill(patch)
        with pytest.raises(UserError) as caught:
            train(make_setup(settings(), corpus()), tmp_path)
    assert named in str(caught.value)
    assert NO_SPACE in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "summary.json").exists()
    assert_goes_on(tmp_path, undisturbed)


def test_a_full_disk_is_not_taken_for_full_memory(tmp_path, monkeypatch, capsys):
    fill_checkpoints(monkeypatch)
    with pytest.raises(UserError) as caught:
        train(make_setup(settings(), corpus()), tmp_path)
    assert str(caught.value) == f"cannot write a checkpoint in {tmp_path}/checkpoints: {NO_SPACE}"
    assert launch.explain_failure([], caught.value) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {caught.value}"
    for error in (MemoryError(), ValueError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes")):
        assert launch.explain_failure([], error) == 2
        assert capsys.readouterr().err.startswith("error: out of memory")


@pytest.mark.parametrize("remove", [shutil.rmtree, lambda path: path.rename(path.with_name("moved"))])
@pytest.mark.parametrize("at", [4, 9])
def test_a_directory_that_goes_during_training_ends_the_run(tmp_path, monkeypatch, remove, at):
    """Nothing is made in its place; a run that was moved resumes there."""
    workdir, write = tmp_path / "run", metrics.MetricsLog.write

    def removing(self, row):
        if row["step"] == at:
            trainer.recorder.checkpoints.wait()
            remove(workdir)
        write(self, row)

    prepare_workdir(workdir, settings())
    trainer = Trainer(Recorder(make_setup(settings(), corpus()), workdir))
    with monkeypatch.context() as patch:
        patch.setattr(metrics.MetricsLog, "write", removing)
        with pytest.raises(UserError, match=r"run/metrics\.jsonl was deleted, moved or replaced during training"):
            trainer.run()
    assert not workdir.exists()
    if (tmp_path / "moved").exists():
        assert train(make_setup(settings(), corpus()), tmp_path / "moved")["train"]["steps"] == 12


@pytest.mark.parametrize("name", ["report.html", "curves.png", "samples.txt", "metrics.jsonl"])
def test_a_users_file_is_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=rf"holds {name} but no config\.json: choose an empty or new directory"):
        train(make_setup(settings(), corpus()), tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_a_save_makes_no_new_work_directory(tmp_path):
    with Checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save(1, {"x": np.zeros(3)}, {})
        with pytest.raises(UserError, match="run was deleted or moved during training"):
            checkpoints.wait()
    assert not (tmp_path / "run").exists()


def test_a_save_under_way_is_written_however_the_run_is_left(tmp_path, monkeypatch):
    """Step 9 is handed over, and its slow disk still writes when the row of step 10 fails."""
    write, fail = Checkpoints._write, metrics.MetricsLog.write

    def slow(self, *arguments):
        time.sleep(0.2)
        write(self, *arguments)

    def failing(self, row):
        if row["step"] == 10:
            raise Interrupted
        fail(self, row)

    monkeypatch.setattr(Checkpoints, "_write", slow)
    monkeypatch.setattr(metrics.MetricsLog, "write", failing)
    with pytest.raises(Interrupted):
        train(make_setup(settings(), corpus()), tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints" / "last").iterdir()) == ["6", "9"]


# --- Places that cannot be written ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "is_directory"), [("samples.txt", True), ("tensorboard", False), ("checkpoints", False)]
)
def test_a_file_that_cannot_be_written_is_named(tmp_path, name, is_directory):
    prepare_workdir(tmp_path, settings())
    (tmp_path / name).mkdir() if is_directory else (tmp_path / name).write_text("in the way")
    with pytest.raises(UserError, match=name) as caught:
        train(make_setup(settings(), corpus()), tmp_path)
    assert "\n" not in str(caught.value)


# --- What a crash leaves --------------------------------------------------------------------------------------------


def damage(path, how):
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
    path.write_bytes({"truncated": content[:middle], "flipped": flipped}[how])


@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(
    undisturbed, tmp_path, monkeypatch, capfd, how
):
    interrupt(tmp_path, monkeypatch, 11, settings())
    damage(tmp_path / "checkpoints" / "last" / "9" / "state" / "checkpoint" / "0", how)
    capfd.readouterr()
    assert_goes_on(tmp_path, undisturbed)
    said = capfd.readouterr()
    assert "last/9 is damaged" in said.err.splitlines()[0]
    assert "after 6 of 12 steps" in said.out


def test_a_run_whose_best_checkpoints_are_all_damaged_ends_and_says_so(undisturbed, tmp_path, capsys):
    expected = undisturbed[1]
    train(make_setup(settings(), corpus()), tmp_path)
    (tmp_path / "summary.json").unlink()
    for path in (tmp_path / "checkpoints" / "best").glob("*/state/checkpoint/0"):
        damage(path, "truncated")
    summary = train(make_setup(settings(), corpus()), tmp_path)
    assert (tmp_path / "summary.json").is_file()
    assert summary["results"] == [row for row in expected["results"] if row["which"] == "final"]
    assert summary["not_scored"].keys() == {"best"}
    assert "every checkpoint in" in summary["not_scored"]["best"]
    capsys.readouterr()
    print_results(summary)
    assert "best is not scored: every checkpoint in" in capsys.readouterr().out


def test_lines_that_a_crash_tore_are_written_anew(undisturbed, tmp_path, monkeypatch):
    interrupt(tmp_path, monkeypatch, 9, settings())
    for name, torn in (("metrics.jsonl", '{"step": 9, "lo'), ("samples.txt", "=" * 80 + "\nstep 8\n===")):
        with open(tmp_path / name, "a") as file:
            file.write(torn)
    assert_goes_on(tmp_path, undisturbed)


def test_samples_that_a_crash_left_without_their_checkpoint_are_written_once(undisturbed, tmp_path, monkeypatch):
    """Step 8 has its samples, and its checkpoint is never written."""

    def crash(self, step, *arguments):
        if step == 9:
            raise Interrupted
        save(self, step, *arguments)

    save = Checkpoints.save
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", crash)
        with pytest.raises(Interrupted):
            train(make_setup(settings(), corpus()), tmp_path)
    assert "step 8" in (tmp_path / "samples.txt").read_text()
    assert_goes_on(tmp_path, undisturbed)


def test_sums_of_losses_do_not_depend_on_where_dispatches_end(tmp_path):
    """Lanes that catch up after a kill stop at other moments than lanes that were not killed."""
    losses = np.random.default_rng(0).uniform(1, 3, 12)
    found = []
    for parts in ([12], [5, 1, 6], [1] * 12):
        trainer = Trainer(Recorder(make_setup(settings(), corpus()), tmp_path))
        for part in np.split(losses, np.cumsum(parts)[:-1]):
            trainer.recorder.account(StepMetrics(part, np.ones_like(part), np.ones_like(part)), 1.0)
        p = trainer.recorder.progress
        found.append((p.report_nats, p.epoch_nats, p.lowest_running_nats))
        trainer.recorder.checkpoints.close()
    assert found[0] == found[1] == found[2]
    assert found[0][0] == pytest.approx(losses.sum())


# --- Clock and strangers --------------------------------------------------------------------------------------------


def test_a_clock_that_goes_back_changes_nothing(undisturbed, tmp_path, monkeypatch):
    """An hour at every look, and a year between the two starts."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    now = [1_800_000_000.0]

    def earlier():
        now[0] -= 3600
        return now[0]

    with monkeypatch.context() as patch:
        patch.setattr(time, "time", earlier)
        interrupt(tmp_path, monkeypatch, 9, settings())
        now[0] -= 365 * 24 * 3600
        assert_goes_on(tmp_path, undisturbed)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "train"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss/nats")] == [row["step"] for row in rows_of(tmp_path)]


def test_checkpoints_of_another_architecture_are_refused_and_left_alone(undisturbed, tmp_path, monkeypatch):
    interrupt(tmp_path, monkeypatch, 9, settings())
    other = settings(model__hidden=(4,))
    (tmp_path / "config.json").unlink()
    for name in ("metrics.jsonl", "samples.txt"):
        (tmp_path / name).unlink()
    (tmp_path / "checkpoints").rename(tmp_path / "moved")
    prepare_workdir(tmp_path, other, corpus().vocabulary)
    (tmp_path / "moved").rename(tmp_path / "checkpoints")
    before = files(tmp_path)
    with pytest.raises(UserError, match=r"belongs to another model: .*\[3, 12\] there") as caught:
        train(make_setup(other, corpus()), tmp_path)
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == before


# --- What is not ours -----------------------------------------------------------------------------------------------


def test_links_among_a_runs_files_are_refused_and_what_they_lead_to_stays(tmp_path):
    victim = tmp_path / "victim"
    (victim / "30").mkdir(parents=True)
    (victim / "30" / "precious").write_text("precious")
    (tmp_path / "file").write_text("precious")
    before = files(victim)
    for name, target in (("checkpoints", victim), ("tensorboard", victim), ("samples.txt", tmp_path / "file")):
        workdir = tmp_path / f"run_{name}"
        workdir.mkdir()
        (workdir / name).symlink_to(target)
        with pytest.raises(UserError, match=f"{name} is not a plain"):
            train(make_setup(settings(), corpus()), workdir)
    workdir = tmp_path / "finished"
    train(make_setup(settings(optim__schedule="constant"), corpus()), workdir)
    shutil.rmtree(workdir / "checkpoints" / "best", ignore_errors=True)
    (workdir / "checkpoints" / "best").symlink_to(victim)
    with pytest.raises(UserError, match="best is not a plain directory"):
        train(make_setup(settings(optim__schedule="constant", train__steps=20), corpus()), workdir)
    assert files(victim) == before
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.parametrize("name", ["config.json", "vocabulary.json", "metrics.jsonl", "summary.json"])
def test_a_pipe_among_a_runs_files_is_refused_without_waiting(tmp_path, name):
    train(make_setup(settings(), corpus()), tmp_path)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    for read in (lambda: train(make_setup(settings(), corpus()), tmp_path), lambda: lm.open_run(tmp_path)):
        with pytest.raises(UserError, match=f"{name} is not a plain file"):
            read()


def test_a_users_own_copy_of_a_checkpoint_stays(tmp_path):
    train(make_setup(settings(optim__schedule="constant"), corpus()), tmp_path)
    last = tmp_path / "checkpoints" / "last"
    for name in ("9.mybackup", "notes", "7.orbax-checkpoint-tmp-3"):
        (last / name).mkdir()
    train(make_setup(settings(optim__schedule="constant", train__steps=20), corpus()), tmp_path)
    assert {"9.mybackup", "notes"} <= {path.name for path in last.iterdir()}
    assert not (last / "7.orbax-checkpoint-tmp-3").exists()
