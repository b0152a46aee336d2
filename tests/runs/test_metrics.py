"""The files of a run: strict JSON, atomic, refused where they belong to another run."""

import io
import json
import os

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from ml_collections.config_dict import placeholder

from lm.errors import UserError
from lm.runs import metrics
from lm.runs.files import make_directory, write_bytes, write_json
from lm.runs.metrics import MetricsLog
from lm.runs.plain import plain
from lm.runs.schema import read_rows
from lm.runs.workdir import log_test_score, prepare_workdir, read_config


def make_config(**changes):
    config = ml_collections.ConfigDict(
        {
            "seed": 0,
            "data": {"fractions": (0.9, 0.05, 0.05), "path": placeholder(str)},
            "optim": {"learning_rate": 1.0, "clip": 5.0},
            "targets": {},
        }
    )
    config.update_from_flattened_dict(changes)
    return config


# --- plain and write_json


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, (2, "a")), [1, [2, "a"]]),
        (float("nan"), None),
        (-float("inf"), None),
        (np.float32(0.5), 0.5),
        (np.float32("nan"), None),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (True, True),
        (np.arange(3, dtype=np.uint8), [0, 1, 2]),
        (np.array(2.0), 2.0),
        (jnp.float32(0.25), 0.25),
        (jnp.array([1.0, jnp.inf]), [1.0, None]),
        ({1: None}, {"1": None}),
        (ml_collections.ConfigDict({"a": (1, 2)}), {"a": [1, 2]}),
        (ml_collections.FrozenConfigDict({"a": [1, 2]}), {"a": [1, 2]}),
    ],
)
def test_plain_is_what_json_gives_back(value, expected):
    result = plain(value)
    assert result == expected
    assert type(result) is type(expected)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_plain_refuses_what_json_cannot_hold():
    with pytest.raises(TypeError, match="object"):
        plain({"a": object()})


def test_write_json_is_strict_and_leaves_nothing_else(tmp_path):
    write_json(tmp_path / "a.json", {"loss": float("nan"), "text": "é", "n": (1, 2)})
    write_json(tmp_path / "a.json", {"loss": float("inf"), "text": "é", "n": (1, 3)})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {"loss": None, "text": "é", "n": [1, 3]}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", [1])

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*a\.json: No space left on device"):
        write_json(tmp_path / "a.json", [2])
    assert json.loads((tmp_path / "a.json").read_text()) == [1]
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_place_under_a_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/a: Not a directory"):
        write_bytes(tmp_path / "file" / "a", b"1")
    with pytest.raises(UserError, match=r"directory .*file/a cannot be made: Not a directory"):
        make_directory(tmp_path / "file" / "a")
    assert make_directory(tmp_path / "b" / "c").is_dir()


# --- prepare_workdir


def test_writes_the_resolved_config_once(tmp_path):
    workdir = prepare_workdir(tmp_path / "deep" / "run", make_config())
    assert read_config(workdir) == plain(make_config())
    before = (workdir / "config.json").stat().st_mtime_ns
    prepare_workdir(workdir, make_config())
    assert (workdir / "config.json").stat().st_mtime_ns == before


def test_tuples_and_lists_are_the_same_config(tmp_path):
    prepare_workdir(tmp_path, ml_collections.ConfigDict({"a": (1, (2.0, "x")), "b": 1}))
    prepare_workdir(tmp_path, ml_collections.ConfigDict({"b": 1, "a": [1, [2.0, "x"]]}))


def test_another_config_is_refused_naming_its_keys(tmp_path):
    prepare_workdir(tmp_path, make_config())
    other = make_config(**{"optim.learning_rate": 2.0, "data.fractions": (0.8, 0.1, 0.1)})
    with pytest.raises(UserError) as caught:
        prepare_workdir(tmp_path, other)
    message = str(caught.value)
    assert "optim.learning_rate: 1.0 -> 2.0" in message
    assert "data.fractions: [0.9, 0.05, 0.05] -> [0.8, 0.1, 0.1]" in message
    assert "clip" not in message
    assert read_config(tmp_path) == plain(make_config())


def test_added_and_removed_keys_are_differences(tmp_path):
    prepare_workdir(tmp_path, ml_collections.ConfigDict({"a": 1, "old": 2, "group": {}}))
    with pytest.raises(UserError, match=r"new: \(absent\) -> 3; old: 2 -> \(absent\)"):
        prepare_workdir(tmp_path, ml_collections.ConfigDict({"a": 1, "new": 3, "group": {}}))


def test_many_differences_are_cut_short(tmp_path):
    prepare_workdir(tmp_path, ml_collections.ConfigDict({f"k{i:02}": 0 for i in range(20)}))
    with pytest.raises(UserError, match="k07: 0 -> 1; and 12 more"):
        prepare_workdir(tmp_path, ml_collections.ConfigDict({f"k{i:02}": 1 for i in range(20)}))


def test_files_of_a_run_without_config_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match=r"holds metrics\.jsonl but no config\.json"):
        prepare_workdir(tmp_path, make_config())


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff"])
def test_a_broken_config_json_is_an_error(tmp_path, content):
    (tmp_path / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"config\.json"):
        prepare_workdir(tmp_path, make_config())


def test_a_workdir_that_cannot_be_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    for workdir in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"directory .*file.* cannot be made"):
            prepare_workdir(workdir, make_config())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_workdir_without_permission_is_an_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="no permission"):
        prepare_workdir(tmp_path, make_config())


# --- MetricsLog


class Terminal(io.StringIO):
    def isatty(self):
        return True


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_rows_are_strict_json_and_plain_lines(tmp_path):
    stream = io.StringIO()
    with MetricsLog(tmp_path, total_steps=300, stream=stream) as log:
        log.write({"step": 0, "loss": float("inf"), "perplexity": None, "protocol": "exact"})
        log.write({"step": 100, "loss": np.float64(1.5), "tokens_per_s": 12345.6})
    assert rows(tmp_path) == [
        {"step": 0, "loss": None, "perplexity": None, "protocol": "exact"},
        {"step": 100, "loss": 1.5, "tokens_per_s": 12345.6},
    ]
    first, second = stream.getvalue().splitlines()
    assert first == "step 0 of 300", "no time left before it is known"
    assert second.startswith("step 100 of 300  loss 1.5  tokens_per_s 12346  (0:00:00 left)")


def test_each_row_is_on_disk_when_write_returns(tmp_path):
    with MetricsLog(tmp_path, total_steps=10, stream=io.StringIO()) as log:
        log.write({"step": 1, "loss": 1.0})
        assert len(rows(tmp_path)) == 1


def test_a_terminal_gets_a_bar_with_the_metric_and_time_left(tmp_path):
    stream = Terminal()
    with MetricsLog(tmp_path, total_steps=200, start_step=50, stream=stream) as log:
        log.write({"step": 99, "loss": 1.25})
        log.write({"step": 199, "loss": 1.0})
    shown = stream.getvalue()
    assert "100/200" in shown
    assert "step" not in shown.replace("step]", "")
    assert "200/200" in shown
    assert "loss 1" in shown


def test_a_resumed_log_drops_what_will_be_done_again(tmp_path):
    with MetricsLog(tmp_path, total_steps=400, stream=io.StringIO()) as log:
        for step in (0, 100, 200, 300):
            log.write({"step": step, "loss": 1.0})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 350, "lo')
    with MetricsLog(tmp_path, total_steps=400, start_step=200, stream=io.StringIO()) as log:
        assert [row["step"] for row in rows(tmp_path)] == [0, 100]  # 200 steps made: 0 to 199
        log.write({"step": 200, "loss": 2.0})
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [
        (0, 1.0),
        (100, 1.0),
        (200, 2.0),
    ]


def test_a_log_that_has_gone_is_reported(tmp_path, capsys):
    with MetricsLog(tmp_path, total_steps=10, start_step=5, stream=io.StringIO()):
        pass
    assert f"warning: {tmp_path}/metrics.jsonl is missing: its rows before step 5 are lost" in capsys.readouterr().err


def test_a_torn_score_of_the_test_split_costs_no_other(tmp_path):
    """The writer goes on after the last whole line, and readers leave the torn one out."""
    path = tmp_path / "test_log.jsonl"
    log_test_score(tmp_path, {"nats": 1.0})
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-5])
    assert [row["nats"] for row in read_rows(path)] == [1.0]
    log_test_score(tmp_path, {"nats": 2.0})
    assert [row["nats"] for row in read_rows(path)] == [1.0, 2.0]


def test_a_torn_line_before_the_restored_step_goes_too(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 0}\n\xff\xfe\n[]\n{}\n{"step": 1}')
    with MetricsLog(tmp_path, total_steps=10, start_step=5, stream=io.StringIO()):
        assert rows(tmp_path) == [{"step": 0}]
    assert "metrics.jsonl: line 2 is not a row (3 such lines are dropped)" in capsys.readouterr().err


def test_a_run_from_the_start_drops_all(tmp_path):
    for _ in range(2):
        with MetricsLog(tmp_path, total_steps=400, stream=io.StringIO()) as log:
            log.write({"step": 0, "loss": 1.0})
    assert len(rows(tmp_path)) == 1
    assert len(list((tmp_path / "tensorboard" / "train").iterdir())) == 1


def test_a_line_stays_on_a_terminal_for_every_validation(tmp_path):
    stream = Terminal()
    with MetricsLog(tmp_path, total_steps=200, stream=stream) as log:
        log.write({"step": 0, "loss": 1.25})
        log.write({"step": 99, "loss": 1.0, "valid_perplexity": 3.0})
        log.write({"step": 199, "loss": 0.5})
    lines = [line.rpartition("\r")[2] for line in stream.getvalue().split("\n")]
    assert [line for line in lines if line.startswith("step")] == ["step 99 of 200  loss 1  valid_perplexity 3"]


def test_time_left_does_not_count_what_compiles_before_the_first_row(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    with MetricsLog(tmp_path, total_steps=1001, stream=stream) as log:
        for now, step in ((20.0, 0), (21.0, 100), (22.0, 200)):
            clock[0] = now
            log.write({"step": step, "loss": 1.0})
    assert [line.partition("loss 1")[2] for line in stream.getvalue().splitlines()] == [
        "",
        "  (0:00:09 left)",
        "  (0:00:08 left)",
    ]


def test_tensorboard_shows_train_and_valid_in_one_chart_and_texts_and_hyperparameters(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    hyperparameters = {"optim.learning_rate": 0.5, "model.hidden": [3], "model.cell": "lstm"}
    with MetricsLog(tmp_path, 10, stream=io.StringIO(), hyperparameters=hyperparameters) as log:
        log.write({"step": 4, "perplexity": 5.0, "valid_perplexity": 6.0, "gradient_norm": 0.25, "new": 1})
        log.write_texts(4, ["one\n# two", "<b>"])
    train, valid = (EventAccumulator(str(tmp_path / "tensorboard" / name)) for name in ("train", "valid"))
    train.Reload(), valid.Reload()
    assert train.Tags()["scalars"] == ["perplexity/reports", "optimiser/gradient_norm", "other/new"]
    assert [(e.step, e.value) for e in valid.Scalars("perplexity/reports")] == [(4, 6.0)]
    [texts] = train.Tensors("samples")
    assert texts.tensor_proto.string_val[0] == b"    one\n    # two\n\n---\n\n    <b>"
    content = train.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert all(part in content for part in (b"optim.learning_rate", b"[3]", b"lstm"))


def test_tensorboard_reads_the_scalars_of_a_resumed_run_once(tmp_path):
    # What `tensorboard --logdir` itself reads with. It has a stand-in for TensorFlow.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, steps in ((0, (0, 100, 200)), (200, (200, 300))):
        with MetricsLog(tmp_path, 400, start_step=start, stream=io.StringIO()) as log:
            for step in steps:
                log.write({"step": step, "loss": step + start / 2, "note": "text", "none": None})
    events = EventAccumulator(str(tmp_path / "tensorboard" / "train"))
    events.Reload()
    assert events.Tags()["scalars"] == ["loss/nats"]
    assert [(e.step, e.value) for e in events.Scalars("loss/nats")] == [
        (0, 0.0),
        (100, 100.0),
        (200, 300.0),
        (300, 400.0),
    ]


def test_validations_that_are_made_again_are_shown_once(tmp_path):
    """The resumed run has not validated yet: the earlier validation, of a step to be repeated, is not shown."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricsLog(tmp_path, 400, stream=io.StringIO()) as log:
        for step in (0, 100, 200):
            log.write({"step": step, "loss": 1.0, "valid_loss": float(step)})
    with MetricsLog(tmp_path, 400, start_step=150, stream=io.StringIO()) as log:
        log.write({"step": 150, "loss": 1.0})
    events = EventAccumulator(str(tmp_path / "tensorboard" / "valid"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss/nats")] == [0, 100]


def test_an_unwritable_log_is_an_error(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match="metrics"):
        MetricsLog(tmp_path, total_steps=1, stream=io.StringIO())


def test_rows_of_two_runs_are_not_continued(tmp_path):
    with MetricsLog(tmp_path, 9, stream=io.StringIO()) as log:
        log.write({"step": 0}), log.write({"step": 3})
    path = tmp_path / "metrics.jsonl"
    content = path.read_text() * 2
    path.write_text(content)
    with pytest.raises(UserError, match=r"metrics\.jsonl: its steps do not ascend: some rows are from another run"):
        MetricsLog(tmp_path, 9, start_step=4)
    assert path.read_text() == content
