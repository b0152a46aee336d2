"""The command line: valid flags reach the command; a mistake gives one line and status 2."""

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
from absl import flags

import launch
from configs import loading
from lm.errors import UserError

ROOT = Path(launch.__file__).resolve().parent

CONFIG = """
import ml_collections

def get_config(variant="small"):
    if variant not in ("small", "large"):
        raise ValueError(f"unknown variant {variant!r}: small or large")
    config = ml_collections.ConfigDict()
    config.seed = 0
    config.optim = ml_collections.ConfigDict()
    config.optim.learning_rate = 1.0
    config.optim.steps = 10
    config.model = ml_collections.ConfigDict()
    config.model.hidden = (64,) if variant == "small" else (512,)
    config.model.cell = "lstm"
    config.model.bias = True
    config.init = ("uniform", -0.1, 0.1)
    config.lock()
    return config
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    """The path of a small config, which also becomes the default config. Nothing runs in the checkout."""
    path = tmp_path / "small.py"
    path.write_text(CONFIG)
    for module in (launch, loading):
        monkeypatch.setattr(module, "DEFAULT_CONFIG", path)
    monkeypatch.delenv("LM_DATA_DIR", raising=False)
    # config_flags loads every config as this module, without clearing what an earlier test left in it.
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    return path


@pytest.fixture
def calls(monkeypatch):
    """Replaces experiments/train.py; a list of (config, workdir, data_dir, other arguments) for each call of run()."""
    made = []

    def run(config, workdir, data_dir, **keywords):
        made.append((config, workdir, data_dir, keywords))

    monkeypatch.setitem(sys.modules, "experiments.train", types.SimpleNamespace(run=run))
    monkeypatch.setattr(launch, "use_compilation_cache", lambda: None)
    return made


def run(*arguments):
    return launch.main(["launch.py", *map(str, arguments)])


@pytest.fixture
def fails(capfd, calls, config):
    """A function that runs arguments, asserts that they fail with status 2 and one line, and returns the line."""

    def check(*arguments):
        assert run(*arguments) == 2
        out, err = capfd.readouterr()
        assert out == ""
        [line] = err.splitlines()
        assert line.startswith("error: ")
        assert "Traceback" not in line
        assert calls == []
        return line

    return check


# --- Valid command lines


def test_defaults(config, calls):
    assert run() == 0
    [(loaded, workdir, data_dir, keywords)] = calls
    assert loaded.model.hidden == (64,)
    assert loaded.is_locked
    assert (workdir, data_dir, keywords) == ("runs/small", None, {"dry_run": False, "eta": True})


def test_overrides_variant_and_directories(config, calls, tmp_path):
    overrides = ["--config.optim.learning_rate=5", "--config.model.hidden=(32,16)", "--config.model.cell=gru"]
    overrides += ["--noconfig.model.bias", "--config.init=('zeros',)"]
    directories = [f"--workdir={tmp_path}/w", "--data_dir", tmp_path]
    assert run(f"--config={config}:large", *overrides, *directories) == 0
    [(loaded, workdir, data_dir, _)] = calls
    assert loaded.optim.learning_rate == 5.0
    assert type(loaded.optim.learning_rate) is float
    assert loaded.model.to_dict() == {"hidden": (32, 16), "cell": "gru", "bias": False}
    assert loaded.init == ("zeros",)
    assert (workdir, data_dir) == (f"{tmp_path}/w", str(tmp_path))


def test_data_dir_comes_from_the_environment(config, calls, tmp_path, monkeypatch):
    monkeypatch.setenv("LM_DATA_DIR", str(tmp_path))
    assert run() == 0
    assert calls[0][2] == str(tmp_path)


@pytest.mark.parametrize(
    ("config", "workdir"),
    [
        ("configs/text8/lstm.py", "runs/text8/lstm"),
        ("configs/ptb/zaremba.py:medium", "runs/ptb/zaremba_medium"),
        ("/elsewhere/mine.py", "runs/mine"),
        ("/elsewhere/mine.py:a/b", "runs/mine_a_b"),
    ],
)
def test_default_workdir_follows_the_config(config, workdir, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert launch.default_workdir(config) == workdir


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import sys\n    sys.exit(0)", "SystemExit: 0"),
        ("config.kind = 'swep'", "config.kind: unknown 'swep'; known: run, sweep, benchmark; did you mean sweep?"),
        ("del config.optim", "config.optim.name is missing: configs/base.py has every key"),
        ("config.targets.x = 3", "config.targets.x must be made by configs.base.target or aim, not 3"),
    ],
)
def test_odd_configs_are_one_line(tmp_path, capsys, body, message):
    path = tmp_path / "odd.py"
    head = (
        "from configs.synthetic import lstm\ndef get_config():\n    config = lstm.get_config()\n    config.unlock()\n"
    )
    path.write_text(f"{head}    {body}\n    return config\n")
    assert launch.main(["launch.py", f"--config={path}", f"--workdir={tmp_path}/run"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# --- Mistakes


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("--config.optim.learning_rat=3", ["learning_rat;", "--config.optim.learning_rate?"]),
        ("--config.learning_rate=3", ["--config.learning_rate;", "--config.optim.learning_rate?"]),
        ("--config.model.seed=3", ["unknown key --config.model.seed", "--config.seed"]),
        ("--config.zzzzzz=3", ["unknown key --config.zzzzzz"]),
        ("--config.optim.steps.x=3", ["unknown key --config.optim.steps.x"]),
        ("--config.model.hidden[0]=3", ["unknown key --config.model.hidden[0]"]),
        ("--config.lock=1", ["unknown key --config.lock"]),
        ("--config..=1", ["unknown key --config.."]),
        ("--config.optim=3", ["--config.optim is a group", "optim.learning_rate, optim.steps"]),
        ("--config.optim.learning_rate=abc", ["--config.optim.learning_rate=abc", "float"]),
        ("--config.optim.steps=1.5", ["--config.optim.steps=1.5", "int"]),
        ("--config.model.bias=maybe", ["--config.model.bias=maybe"]),
        ("--config.model.hidden=(1,'a')", ["--config.model.hidden", "'a' is not int"]),
        ("--config.model.hidden=wide", ["--config.model.hidden", "'wide' is not int"]),
        ("--config.init=3", ["--config.init", "3 is not str"]),
        ("--config.optim.steps", ["--config.optim.steps"]),
        ("--confg=a.py", ["unknown flag --confg", "--config?"]),
        ("--wordkir=a", ["unknown flag --wordkir", "--workdir"]),
        ("--experiment=trian", ["--experiment: unknown 'trian'; known: train, ", "did you mean train?"]),
        ("--experiment=xyz", ["--experiment: unknown 'xyz'; known: train, ", "benchmark"]),
        ("--workdir=", ["--workdir"]),
        ("--data_dir=/not/here", ["--data_dir=/not/here", "directory"]),
        ("--debug=maybe", ["--debug=maybe"]),
        ("train", ["'train'", "--name=value"]),
        ("--config=configs/text8/lstm_fusd.py", ["lstm_fusd.py", "configs/text8/lstm_fused.py"]),
        ("--config=", ["--config="]),
        ("--config", ["--config="]),
        ("--config=lm", ["--config=lm"]),
        ("--flagfile=/not/here", ["/not/here"]),
    ],
)
def test_one_line_names_the_mistake(fails, monkeypatch, argument, parts):
    monkeypatch.chdir(ROOT)
    line = fails(argument)
    for part in parts:
        assert part in line


def test_an_unknown_variant_is_reported_with_the_configs_own_message(fails, config):
    assert fails(f"--config={config}:medium").endswith("unknown variant 'medium': small or large")


def test_an_override_before_its_config(fails, config):
    assert "--config.seed=3" in fails("--config.seed=3", f"--config={config}")


def test_the_first_of_several_mistakes_is_named(fails):
    assert "learning_rat;" in fails("--config.optim.learning_rat=1", "--config.foo=1")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("x = = 1", "SyntaxError"),
        ("import not_a_module", "ModuleNotFoundError"),
        ("x = 1", "get_config"),
        ("def get_config():\n    return {'a': 1}", "must return a ConfigDict"),
        ("def get_config():\n    return 1 / 0", "ZeroDivisionError: division by zero"),
        ("def get_config():\n    raise ValueError('two\\nlines')", "lines"),
        ("def get_config():\n    raise KeyError('a')", "KeyError"),
        ("def get_config():\n    raise OSError('no')", "--config"),
    ],
)
def test_a_config_that_fails(fails, tmp_path, content, part):
    path = tmp_path / "bad.py"
    path.write_text(content)
    line = fails(f"--config={path}")
    assert str(path) in line
    assert part in line


def test_lm_data_dir_is_checked_too(fails, monkeypatch):
    monkeypatch.setenv("LM_DATA_DIR", "/not/here")
    assert "LM_DATA_DIR=/not/here is not a directory" in fails()


@pytest.mark.parametrize("flag", ["data_dir", "checkpoint", "to"])
def test_an_empty_flag_is_refused(fails, flag):
    assert f"--{flag}= is empty: give a value, or leave it out" in fails(f"--{flag}=")


def test_user_errors_of_the_command_are_one_line(config, calls, monkeypatch, capfd):
    def run_badly(config, workdir, data_dir, **keywords):
        raise UserError("config.data.path: the file\nis empty")

    sys.modules["experiments.train"].run = run_badly
    assert run() == 2
    assert capfd.readouterr().err == "error: config.data.path: the file is empty\n"


def test_debug_shows_the_traceback_as_well(config, calls, capfd):
    assert run("--debug", "--config.nope=1") == 2
    err = capfd.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: unknown key --config.nope")


def test_bugs_keep_their_traceback(config, calls, monkeypatch):
    sys.modules["experiments.train"].run = lambda *arguments, **keywords: 1 / 0
    with pytest.raises(ZeroDivisionError):
        run()


def test_an_interrupt_is_one_line_and_130(config, calls, capfd):
    def interrupted(*arguments, **keywords):
        raise KeyboardInterrupt

    sys.modules["experiments.train"].run = interrupted
    assert run() == 130
    [line] = capfd.readouterr().err.splitlines()
    assert line.startswith("interrupted")


# --- Flags of some commands only


@pytest.fixture
def two_commands(monkeypatch, calls):
    """Two commands that share flags, reproduce and summarise."""
    targets = launch.Flag(flags.DEFINE_string, "targets", "*", "Which targets.")
    seeds = launch.Flag(flags.DEFINE_integer, "seeds", 3, "How many seeds.")
    for name in ("reproduce", "summarise"):
        monkeypatch.setitem(launch.COMMANDS, name, launch.Command("experiments.train", (targets, seeds)))


def test_a_commands_own_flags_reach_it(config, two_commands, calls):
    assert run("--experiment=reproduce", "--targets=text8/*") == 0
    assert calls[0][3] == {"targets": "text8/*", "seeds": 3}
    assert run() == 0
    assert calls[1][3] == {"dry_run": False, "eta": True}


def test_flags_of_another_command_are_refused(two_commands, fails):
    assert "--seeds works only with --experiment=reproduce or summarise" in fails("--seeds=2")
    assert "--noeta works only with --experiment=train" in fails("--experiment=sample", "--noeta")
    assert "--seeds=many" in fails("--experiment=summarise", "--seeds=many")


# --- Arguments that are not flags


def test_arguments_reach_a_command_that_takes_them(config, calls, monkeypatch, fails):
    command = launch.Command("experiments.train", arguments="runs", workdir="runs/both")
    monkeypatch.setitem(launch.COMMANDS, "both", command)
    assert run("--experiment=both", "a", "--config.seed=3", "b") == 0
    [(loaded, workdir, _, keywords)] = calls
    assert (loaded.seed, workdir, keywords) == (3, "runs/both", {"runs": ("a", "b")})
    calls.clear()
    assert "'b'" in fails("--config.seed=3", "b")


# --- The process


def test_a_mistake_is_reported_without_importing_jax():
    code = (
        "import launch, sys; status = launch.main(['launch.py', '--config.nope=1']); "
        "sys.exit(status if not {'jax', 'numpy', 'flax'} & set(sys.modules) else 99)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_closed_output_ends_the_process_quietly():
    command = [sys.executable, "-c", "import launch, sys; sys.exit(launch.main(['', '--help']))"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_runs_from_any_directory(tmp_path):
    done = subprocess.run([sys.executable, ROOT / "launch.py", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("--lr=3", "unknown flag --lr; did you mean --config.optim.learning_rate?"),
        ("--prompt=x", "unknown flag --prompt; did you mean --config.sample.prompt?"),
        ("--config.optim.lr=3", "did you mean --config.optim.learning_rate?"),
        ("--wordir=a", "did you mean --workdir"),
        ("--learnin_rate=1", "did you mean --config.optim.learning_rate"),
        ("sample runs/a", "did you mean --experiment=sample --workdir=runs/a?"),
        ("--config.model.hidden=(4,) --config.model.hidden=(5,)", "--config.model.hidden is given twice: name it once"),
        ("--corpus=ptb", "only with --experiment=reproduce; did you mean --config.data.corpus?"),
        ("sample", "unexpected argument 'sample': flags are written --name=value; did you mean --experiment=sample?"),
    ],
)
def test_a_hint_finds_the_key_that_is_meant(argument, hint, capsys):
    assert launch.main(["launch.py", *argument.split()]) == 2
    assert hint in capsys.readouterr().err


@pytest.mark.slow
def test_a_device_that_is_not_there_is_one_line(tmp_path):
    environment = os.environ | {"JAX_PLATFORMS": "cuda"}
    command = [sys.executable, "launch.py", f"--workdir={tmp_path}/run"]
    done = subprocess.run(command, cwd=launch.CONFIGS.parent, env=environment, capture_output=True, text=True)
    if done.returncode == 0:
        pytest.skip("there is a GPU here")
    assert done.returncode == 2
    assert "error: JAX_PLATFORMS=cuda: JAX finds no such device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_variable_of_jax_that_is_wrong_is_one_line(tmp_path):
    environment = os.environ | {"JAX_ENABLE_X64": "maybe"}
    command = [sys.executable, "launch.py", f"--workdir={tmp_path}/run"]
    done = subprocess.run(command, cwd=launch.CONFIGS.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    said = "invalid truth value 'maybe' for environment 'JAX_ENABLE_X64': set it to true or false, or unset it"
    assert done.stderr == f"error: JAX does not start: {said}\n"


@pytest.mark.slow
def test_a_closed_standard_output_is_no_traceback(tmp_path):
    command = f"{sys.executable} launch.py --workdir={tmp_path}/run --config.train.steps=3 --config.data.size=3000 >&-"
    done = subprocess.run(["bash", "-c", command], cwd=launch.CONFIGS.parent, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert (tmp_path / "run" / "summary.json").exists()
