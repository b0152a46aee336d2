"""Checkpoints restore bitwise, survive damage and kills, and refuse another model."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.errors import UserError
from lm.runs.checkpoint import Checkpoints

ROOT = Path(__file__).resolve().parents[2]


class Carry(NamedTuple):
    c: jax.Array
    h: jax.Array


def make_state(scale=1.0):
    key = jax.random.key(3)
    return {
        "parameters": {
            "w": scale * jax.random.normal(key, (4, 6)),
            "b": jnp.zeros(6, jnp.bfloat16),
        },
        "carry": (Carry(jnp.full((2, 3), scale), jnp.full((2, 3), jnp.nan)),),
        "key": jax.random.key(7),
        "lanes": jax.random.split(jax.random.key(1, impl="rbg"), 3),
        "step": jnp.int32(5),
        "nothing": jnp.zeros((0, 3)),
        "tokens": jnp.arange(5, dtype=jnp.uint8),
        "done": jnp.array(True),
    }


def bits(tree):
    """Each leaf as (dtype, shape, bytes)."""
    raw = jax.tree.map(
        lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x,
        tree,
    )
    return [
        (str(whole.dtype), whole.shape, np.asarray(leaf).tobytes())
        for whole, leaf in zip(jax.tree.leaves(tree), jax.tree.leaves(raw), strict=True)
    ]


@pytest.fixture
def checkpoints(tmp_path):
    with Checkpoints(tmp_path, keep=2) as opened:
        yield opened


def steps(workdir, which="last"):
    return sorted(int(path.name) for path in (workdir / "checkpoints" / which).iterdir())


def test_restores_bitwise_with_extra_and_step(checkpoints):
    state, extra = make_state(), {"best": float("inf"), "offset": 12, "names": ["a"], "none": None}
    checkpoints.save(7, state, extra)
    restored, restored_extra, step = checkpoints.restore(make_state(scale=0.0))
    assert bits(restored) == bits(state)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert (restored_extra, step) == (extra, 7)


def test_restored_keys_draw_the_same_numbers(checkpoints):
    state = make_state()
    checkpoints.save(1, state, {})
    restored, _, _ = checkpoints.restore(state)
    for name in ("key", "lanes"):
        a, b = state[name], restored[name]
        if name == "lanes":
            a, b = a[1], b[1]
        assert (jax.random.normal(a, (5,)) == jax.random.normal(b, (5,))).all()


def test_nothing_saved_is_none(checkpoints, tmp_path):
    assert checkpoints.restore(make_state()) is None
    assert checkpoints.restore(make_state(), which="best") is None
    assert list(tmp_path.iterdir()) == []


def test_state_and_extra_may_be_changed_once_save_returns(checkpoints):
    @jax.jit
    def double(x):
        return x * 2

    donate = jax.jit(lambda x: x + 1, donate_argnums=0)
    x = double(jnp.arange(1000.0))
    before, extra = np.array(x), {"list": [1]}
    checkpoints.save(1, {"x": x}, extra)
    donate(x).block_until_ready()
    extra["list"].append(2)
    restored, restored_extra, _ = checkpoints.restore({"x": jnp.zeros(1000)})
    np.testing.assert_array_equal(restored["x"], before)
    assert restored_extra == {"list": [1]}


def test_restored_state_can_be_donated(checkpoints):
    checkpoints.save(1, {"x": jnp.arange(1000.0)}, {})
    restored, _, _ = checkpoints.restore({"x": jnp.zeros(1000)})
    after = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)(restored)
    np.testing.assert_array_equal(after["x"], np.arange(1000.0) + 1)


def test_keeps_the_newest_of_each_kind(checkpoints, tmp_path):
    for step in (1, 2, 3):
        checkpoints.save(step, {"x": jnp.float32(step)}, {})
    checkpoints.save(2, {"x": jnp.float32(20)}, {"valid": 1.5}, "best")
    checkpoints.wait()
    assert steps(tmp_path) == [2, 3]
    state, extra, step = checkpoints.restore({"x": jnp.float32(0)}, which="best")
    assert (float(state["x"]), extra, step) == (20.0, {"valid": 1.5}, 2)


def test_an_earlier_step_replaces_the_history_after_it(checkpoints, tmp_path):
    for step in (10, 20):
        checkpoints.save(step, {"x": jnp.float32(step)}, {})
    checkpoints.save(20, {"x": jnp.float32(21)}, {})
    checkpoints.save(15, {"x": jnp.float32(15)}, {})
    checkpoints.wait()
    assert steps(tmp_path) == [10, 15]


def test_the_best_that_a_step_of_last_goes_on_with_is_kept(checkpoints, tmp_path):
    """Whoever goes back to step 4 finds the best of that time, however many better ones came since."""
    x = {"x": jnp.float32(0)}
    for step in (1, 2, 3):
        checkpoints.save(step, x, {}, "best")
    checkpoints.save(4, x, {})
    for step in (5, 6, 7):
        checkpoints.save(step, x, {}, "best")
    checkpoints.wait()
    assert steps(tmp_path, "best") == [3, 6, 7]
    checkpoints.forget_best_after(4)
    assert steps(tmp_path, "best") == [3]


def test_an_earlier_one_can_be_asked_for(checkpoints):
    for step in (1, 2):
        checkpoints.save(step, {"x": jnp.float32(step)}, {})
    template = {"x": jnp.float32(0)}
    assert checkpoints.restore(template, before=2)[2] == 1
    assert checkpoints.restore(template, before=1) is None


@pytest.mark.parametrize("name", ["²", "٣", "07"])
def test_what_only_looks_like_a_step_is_none(checkpoints, tmp_path, capfd, name):
    x = {"x": jnp.float32(0)}
    checkpoints.save(1, x, {})
    checkpoints.wait()
    (tmp_path / "checkpoints" / "last" / name).mkdir()
    (tmp_path / "checkpoints" / "last" / "5").write_text("a file")
    assert checkpoints.restore(x)[2] == 1
    assert capfd.readouterr().err == ""


def damage(path, how):
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(
        {
            "truncated": content[:middle],
            "empty": b"",
            "flipped": content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :],
        }[how]
    )


# Files that hold what is restored; orbax's notes about the save itself may be lost.
@pytest.mark.parametrize("how", ["truncated", "empty", "flipped"])
@pytest.mark.parametrize("name", ["record/metadata", "state/checkpoint/0"])
def test_a_damaged_newest_falls_back_to_the_one_before(checkpoints, tmp_path, capfd, name, how):
    state = {"x": jnp.arange(50.0)}
    checkpoints.save(1, state, {"n": 1})
    checkpoints.save(2, state, {"n": 2})
    checkpoints.wait()
    damage(tmp_path / "checkpoints" / "last" / "2" / name, how)
    restored, extra, step = checkpoints.restore(state)
    assert (extra, step) == ({"n": 1}, 1)
    assert bits(restored) == bits(state)
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("warning: checkpoint")
    assert "last/2 is damaged" in line


def test_a_step_without_its_files_counts_as_damaged(checkpoints, tmp_path):
    for step in (1, 2):
        checkpoints.save(step, {"x": jnp.arange(5.0)}, {})
    checkpoints.wait()
    shutil.rmtree(tmp_path / "checkpoints" / "last" / "2" / "state")
    assert checkpoints.restore({"x": jnp.arange(5.0)})[2] == 1


def test_all_damaged_is_an_error(checkpoints, tmp_path):
    checkpoints.save(1, {"x": jnp.arange(5.0)}, {})
    checkpoints.wait()
    damage(tmp_path / "checkpoints" / "last" / "1" / "record" / "metadata", "empty")
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged"):
        checkpoints.restore({"x": jnp.arange(5.0)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": jnp.zeros(6)}, r"x is float32\[5\] there, float32\[6\] here"),
        ({"x": jnp.zeros(5, jnp.int32)}, r"x is float32\[5\] there, int32\[5\] here"),
        ({"y": jnp.zeros(5)}, r"y is absent there, float32\[5\] here"),
        ({"key": jax.random.key(0, impl="rbg")}, "key is key<fry>"),
    ],
)
def test_another_model_is_refused(checkpoints, change, message):
    state = {"x": jnp.zeros(5), "key": jax.random.key(0)}
    checkpoints.save(1, state, {})
    with pytest.raises(UserError, match=message):
        checkpoints.restore(state | change)


def test_an_unwritable_place_is_an_error_at_the_next_call(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"x": jnp.zeros(3)}, {})
    with pytest.raises(UserError, match="cannot write a checkpoint"):
        checkpoints.wait()
    checkpoints.close()


def test_extra_that_json_cannot_hold_is_refused_at_once(checkpoints):
    with pytest.raises(TypeError):
        checkpoints.save(1, {"x": jnp.zeros(3)}, {"a": object()})


SAVE_FOR_EVER = """
import sys, jax.numpy as jnp
from lm.runs.checkpoint import Checkpoints
checkpoints = Checkpoints(sys.argv[1])
for step in range(1, 10**6):
    checkpoints.save(step, {"x": jnp.full(1000, step, jnp.float32)}, {"n": step})
    if step == 3:
        print("ready", flush=True)
"""


def test_a_kill_while_saving_leaves_a_sound_checkpoint(tmp_path, capfd):
    process = subprocess.Popen([sys.executable, "-c", SAVE_FOR_EVER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    with process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
    with Checkpoints(tmp_path) as checkpoints:
        state, extra, step = checkpoints.restore({"x": jnp.zeros(1000)})
        assert extra == {"n": step}
        np.testing.assert_array_equal(state["x"], np.full(1000, step, np.float32))
        checkpoints.save(step + 1, state, {})
        checkpoints.wait()
        assert step + 1 in steps(tmp_path)  # and what the kill left half written is gone
    assert "damaged" not in capfd.readouterr().err


def test_a_checkpoint_that_is_rotated_away_while_it_is_read_is_not_called_damaged(tmp_path, checkpoints, capsys):
    """A run samples its last checkpoint while another process trains on."""
    checkpoints.save(1, make_state(1.0), {})
    checkpoints.wait()
    with Checkpoints(tmp_path) as reader:
        read = reader._read

        def read_late(path, template):
            if path.name == "1":
                checkpoints.save(2, make_state(2.0), {})
                checkpoints.wait()
                shutil.rmtree(path)
            return read(path, template)

        reader._read = read_late
        state, _, step = reader.restore(make_state())
    assert step == 2
    assert bits(state) == bits(make_state(2.0))
    assert "damaged" not in capsys.readouterr().err
