"""A checkpoint says itself which run it is of."""

import json
import shutil

import pytest

import lm
from lm.errors import UserError
from lm.machine import numerics
from lm.runs import origin, provenance
from lm.runs.checkpoint import Checkpoints
from lm.training import recorder as recorder_module
from lm.training.loop import train
from lm.training.setup import make_setup
from tests.helpers import tiny


def run(workdir, **changes):
    return train(make_setup(tiny.config(**changes), tiny.corpus()), workdir)


def test_checkpoints_of_another_seed_beside_a_config_are_refused(tmp_path):
    for seed in (0, 5):
        run(tmp_path / f"{seed}", seed=seed)
    shutil.rmtree(tmp_path / "0" / "checkpoints")
    shutil.copytree(tmp_path / "5" / "checkpoints", tmp_path / "0" / "checkpoints")
    with pytest.raises(UserError, match=r"the checkpoint of step 12 does not match config\.json"):
        lm.open_run(tmp_path / "0")
    with pytest.raises(UserError, match=r"does not match config\.json"):
        run(tmp_path / "0", train__steps=20)


def test_a_config_that_was_edited_is_noticed(tmp_path):
    """zoneout of evaluation: the same arrays, other numbers."""
    run(tmp_path, zoneout__output=0.5)
    config = json.loads((tmp_path / "config.json").read_text())
    config["zoneout"]["output"] = 0.25
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"does not match config\.json"):
        lm.open_run(tmp_path)


def test_numbers_of_another_version_are_not_relabelled(tmp_path, monkeypatch):
    run(tmp_path)
    for module in (origin, provenance):
        monkeypatch.setattr(module, "NUMERICS", 2)
    with pytest.raises(UserError, match="was made by version 1 of the numerics; this code has version 2"):
        run(tmp_path, train__steps=20)
    with pytest.raises(UserError, match="was made by version 1"):
        lm.open_run(tmp_path)


def test_the_revision_is_that_at_the_start(tmp_path, monkeypatch):
    revisions = [{"revision": name * 40, "dirty": False} for name in "abc"]
    monkeypatch.setattr(recorder_module, "revision", lambda: revisions.pop(0))
    assert run(tmp_path, train__steps=5)["provenance"]["git"]["revision"] == "a" * 40
    assert run(tmp_path)["provenance"]["git"]["revision"] == "a" * 40  # resumed under b


def test_the_environment_names_no_other_repository(tmp_path, monkeypatch):
    own = provenance.revision()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    assert provenance.revision() == own


def test_a_checkpoint_of_an_earlier_version_still_opens(tmp_path):
    run(tmp_path)
    setup = make_setup(tiny.config(), tiny.corpus())
    with Checkpoints(tmp_path) as checkpoints:
        state, extra, step = checkpoints.restore(setup.state_shapes)
        old = {key: value for key, value in extra.items() if key not in ("run", "numerics", "git")}
        checkpoints.save(step, state, old)
    assert lm.open_run(tmp_path).step == 12
    assert run(tmp_path, train__steps=20)["provenance"]["git"] is None


def test_a_key_that_is_new_or_free_makes_no_other_run():
    config = tiny.config().to_dict()
    before = origin.run_of(config)
    del config["optim"]["frozen"]
    assert origin.run_of(config) == before
    for changes in ({"sample__number": 7}, {"train__steps": 99}, {"checkpoint__keep": 9}, {"data__path": "x"}):
        assert origin.run_of(tiny.config(**changes)) == before
    assert origin.run_of(tiny.config(optim__clip=2.0)) != before


@pytest.mark.parametrize(
    ("name", "value"),
    [("jax_default_prng_impl", "rbg"), ("jax_numpy_dtype_promotion", "strict"), ("jax_transfer_guard", "disallow")],
)
def test_settings_of_jax_from_the_environment_decide_nothing(name, value):
    import jax

    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        numerics.fix_numerics()
        assert getattr(jax.config, name) == numerics.SETTINGS[name]
    finally:
        jax.config.update(name, before)
