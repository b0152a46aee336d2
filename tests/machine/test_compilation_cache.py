"""The directory of compiled programs."""

from pathlib import Path

import jax
import pytest

from lm.machine.compilation_cache import PROJECT, use_compilation_cache


@pytest.fixture
def restored_jax_config():
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_compilation_cache_is_in_the_users_cache(tmp_path, monkeypatch, restored_jax_config):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    use_compilation_cache()
    chosen = jax.config.jax_compilation_cache_dir
    assert Path(chosen).parent == tmp_path / PROJECT / "jax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    use_compilation_cache()  # keeps a directory that was chosen before, for example by the user
    assert jax.config.jax_compilation_cache_dir == chosen


def test_a_cache_that_cannot_be_written_is_not_used(tmp_path, monkeypatch, restored_jax_config):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir is None
