"""Work directories with unusual paths."""

import pytest

import lm
from lm.errors import UserError
from lm.training.loop import train
from lm.training.setup import make_setup
from tests.helpers.few import few
from tests.training.test_resume import config, corpus

ODD_PATHS = ("a b", "a?b", "a%b", "\u00e4\u2603", "a[b]", "a:b", "~u", "x/../y", "long" * 50)


@pytest.mark.parametrize("name", few(ODD_PATHS, "a%b", "x/../y"))
def test_odd_paths_work(tmp_path, name, monkeypatch):
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path / "x")
    for workdir in (tmp_path / name, f"../{name}_relative"):
        for _ in range(2):
            train(make_setup(config(train__sample_every=4), corpus()), workdir)
        assert lm.open_run(workdir).step == 12


@pytest.mark.parametrize("name", ["a\\b", "a\nb", "a\udcffb"])
def test_paths_that_cannot_work_are_refused_at_once(tmp_path, name):
    with pytest.raises(UserError, match="checkpoints need a path of printable UTF-8 without a backslash"):
        train(make_setup(config(train__sample_every=4), corpus()), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] in ([], [name])
