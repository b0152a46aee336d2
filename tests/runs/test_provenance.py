"""What is said of where a number comes from, and what makes two runs the same run."""

import functools
import json
import operator
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from experiments.ledger.records import RESULTS
from lm.data.corpora import checksum
from lm.runs.provenance import ADDED_LATER, NUMERICS, identity, provenance, revision
from tests.helpers import tiny


def test_provenance_is_complete_and_json():
    corpus = SimpleNamespace(provenance={"checksum": "00", "tokens": {"train": np.int64(5)}})
    record = provenance(tiny.config(), corpus, revision())
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert set(record) == {"identity", "numerics", "versions", "device", "git", "data", "config"}
    assert record["identity"] == identity(tiny.config(), "00")
    assert record["numerics"] == NUMERICS
    assert set(record["versions"]) == {
        "python",
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "ml_collections",
        "numpy",
    }
    assert record["device"]["platform"] == "cpu"
    assert record["device"]["count"] >= 1
    assert record["data"]["tokens"] == {"train": 5}
    assert record["config"]["data"]["fractions"] == [0.9, 0.05, 0.05]


def test_git_revision_and_dirt(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    assert revision(tmp_path) is None
    git("init")
    assert revision(tmp_path) is None  # no commit yet
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "one")
    clean = revision(tmp_path)
    assert len(clean["revision"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert revision(tmp_path) == clean | {"dirty": True}
    (tmp_path / "inner").mkdir()
    assert revision(tmp_path / "inner") is None  # unpacked inside someone's repository


def test_no_git_is_no_revision(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert revision(tmp_path) is None


# --- identity


def test_every_committed_record_has_the_identity_that_its_config_has_today():
    """A new key in base() must not make other runs of them: ADDED_LATER."""
    paths = sorted((RESULTS / "records").glob("*.json"))
    assert len(paths) >= 35
    for path in paths:
        p = json.loads(path.read_text())["provenance"]
        assert identity(p["config"], p["data"]["checksum"], p["numerics"]) == p["identity"], path.name
        with_new_keys = ConfigDict(p["config"])
        for key, default in ADDED_LATER.items():
            *groups, name = key.split(".")
            group = functools.reduce(operator.getitem, groups, with_new_keys)
            group[name] = group.get(name, default)
        assert identity(with_new_keys, p["data"]["checksum"], p["numerics"]) == p["identity"], path.name


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"optim__learning_rate": 1.0000001},
        {"train__steps": 13},
        {"model__cell": "gru"},
        {"keep_prob__output": 0.9},
        {"evaluation__protocols": ("exact", "notebook")},
        {"data__corpus": "text8"},
    ],
)
def test_what_decides_numbers_makes_another_run(changes):
    assert identity(tiny.config(**changes), "00") != identity(tiny.config(), "00")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "b"},
        {"source": "b"},
        {"parameters": 5},
        {"train__devices": 3},
        {"train__threads": 1},
        {"data__path": "elsewhere"},
        {"sample__temperature": 0.5},
    ],
)
def test_what_decides_none_does_not(changes):
    assert identity(tiny.config(**changes), "00") == identity(tiny.config(), "00")


def test_targets_make_no_other_run():
    config = tiny.config().to_dict()
    assert identity(config | {"targets": {"valid": {"value": 1.0}}}, "00") == identity(config, "00")


def test_other_data_and_other_numerics_make_another_run():
    assert len({identity(tiny.config(), "00"), identity(tiny.config(), "01"), identity(tiny.config(), "00", -1)}) == 3


def test_a_config_read_back_from_json_is_the_same_run():
    read = json.loads(json.dumps(tiny.config().to_dict()))
    assert identity(read, "00") == identity(tiny.config(), "00")


def test_checksum_of_registered_and_own_files(tmp_path):
    data = tiny.config().data
    sums = set()
    for corpus in ("text8", "text8_prefix", "ptb", "synthetic"):
        data.corpus = corpus
        sums.add(checksum(data))
    data.corpus = "textfile"
    for name, text in (("a", "one"), ("b", "two"), ("c", "one")):
        (tmp_path / name).write_text(text)
        data.path = str(tmp_path / name)
        sums.add(checksum(data))
    assert len(sums) == 6, "the same text under another name is the same data"
