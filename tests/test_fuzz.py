"""Files from strangers: mutated by hypothesis, or made to run code, to write elsewhere, or to exhaust the memory."""

import json

import pytest

import lm
from experiments import record
from lm.errors import UserError
from lm.model import weights
from lm.runs.checkpoint import Checkpoints
from lm.training.loop import Trainer, train
from lm.training.recorder import Recorder
from lm.training.setup import make_setup
from tests.helpers import fuzz, tiny
from tests.helpers.few import few

TRIES = 40  # of a target of weight 1; tests/soak/soak_fuzz.py has many more


@pytest.mark.parametrize("name", few(fuzz.TARGETS, *list(fuzz.TARGETS)[::5]))
def test_a_mutated_file_is_opened_or_refused_with_one_line(name, tmp_path):
    target, refused = fuzz.TARGETS[name](tmp_path), []
    target.read()
    fuzz.try_often(target, max(5, round(TRIES * target.weight)), lambda message: refused.append(message != ""))
    assert any(refused)
    target.read()  # what was put back is sound


# --- Weights and checkpoints ----------------------------------------------------------------------------------------


def test_a_pickle_is_not_run(tmp_path):
    harmed, path = tmp_path / "harmed", tmp_path / "model.safetensors"
    path.write_bytes(f"cos\nmkdir\n(V{harmed}\ntR.".encode())  # what unpickling would call: os.mkdir(harmed)
    model, _ = tiny.model()
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        weights.load_weights(str(path), model, tiny.corpus().vocabulary)
    assert not harmed.exists()


@pytest.fixture
def run(tmp_path):
    train(make_setup(fuzz.settings(), tiny.corpus()), str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("extra", [0, None, [], "text", {"progress": {}}])
def test_a_record_of_another_form_is_refused(run, extra):
    sound = trainer(str(run))
    with Checkpoints(run) as checkpoints:
        checkpoints.save(4, sound.state, extra)
    for read in (lambda: trainer(str(run)), lambda: lm.open_run(run)):
        if not isinstance(extra, dict):
            with pytest.raises(UserError, match="the checkpoint of step 4 must be an object"):
                read()
    with pytest.raises(UserError, match="the checkpoint of step 4"):
        trainer(str(run))


def trainer(workdir):
    made = Trainer(Recorder(make_setup(fuzz.settings(), tiny.corpus()), workdir))
    made.recorder.checkpoints.close()
    return made


def test_a_checkpoint_that_asks_for_more_memory_than_the_model_is_damaged(run, capsys):
    """Who reads such an array ends with the process."""
    description = run / "checkpoints" / "last" / "4" / "state" / "checkpoint" / ".zarray"
    stored = json.loads(description.read_text())
    (size,) = stored["shape"]
    for changes in (
        {"shape": [10**12], "chunks": [10**12]},
        {"chunks": [10**12]},
        {"shape": [size + 1]},
        {"dtype": "<f8"},
    ):
        description.write_text(json.dumps(stored | changes))
        with pytest.raises(UserError, match=r"every checkpoint in .*last is damaged"):
            trainer(str(run))
        assert "its array is" in capsys.readouterr().err


def rewritten(run, **changes):
    """The checkpoint with other things beside its state, under a checksum that is right."""
    sound = trainer(str(run))
    with Checkpoints(run) as checkpoints:
        checkpoints.save(4, sound.state, sound.recorder.record() | changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"progress": {"report_nats": "many"}}, 'progress: report_nats has the wrong type: "many"'),
        ({"progress": {"tomorrow": 1}}, "progress has tomorrow, which is unknown to this version of the project"),
        ({"progress": []}, "progress must be an object, not an array"),
        ({"checks": {"losses": 1.0}}, "checks: losses has the wrong type: 1.0"),
        ({"samples_bytes": -1}, "samples_bytes must be an integer of 0 or more, not -1"),
        ({"data": "of another text"}, "holds a run on other data"),
    ],
)
def test_what_a_checkpoint_says_beside_the_state_is_checked(run, changes, said):
    rewritten(run, **changes)
    with pytest.raises(UserError) as caught:
        trainer(str(run))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_changed_record_is_damage_and_not_another_model(run, capsys):
    path = run / "checkpoints" / "last" / "4" / "record" / "metadata"
    path.write_text(path.read_text().replace("[3, 12]", "[4, 12]"))
    with pytest.raises(UserError, match="is damaged"):
        trainer(str(run))
    assert "its record's checksum does not match" in capsys.readouterr().err


def test_a_record_writes_where_records_are(tmp_path):
    """Names in a stranger's files are no paths."""
    for name in ("../../outside", "/tmp/outside", "a/../../b", "", ".", "a//b", "a" * 200, "records", "sweeps"):
        (tmp_path / "sweep.json").write_text(json.dumps({"name": name}))
        with pytest.raises(UserError, match="is not the name of a sweep"):
            record.put_sweep_on_record(tmp_path, tmp_path / "results")
    made = {"name": "../../a", "corpus": "../..\\b", "seed": 0}
    assert record.write_record(made, tmp_path / "records").parent == tmp_path / "records"
    assert not (tmp_path / "results").exists()
