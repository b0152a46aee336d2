"""What a run says of itself before it begins: nothing where it is short, and at no cost in compiling."""

import functools

import numpy as np
import pytest

from configs.ptb.zaremba import get_config
from experiments import train as train_experiment
from lm.data.corpora import Corpus
from lm.data.text import Vocabulary
from lm.errors import UserError
from lm.scoring.protocols import compile_stream
from lm.tasks import language_modelling
from lm.training import estimates, memory, timing
from lm.training.loop import train
from lm.training.setup import Setup, make_setup
from tests.helpers import tiny
from tests.helpers.few import few


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Times little: what is tested is not how exact the times are."""
    monkeypatch.setattr(timing, "TIMED_DISPATCHES", 2)
    monkeypatch.setattr(timing, "TIMED_SECONDS", 0.01)


@pytest.fixture
def corpus(monkeypatch):
    """What train.run loads."""
    monkeypatch.setattr(train_experiment, "load", lambda *arguments: tiny.corpus())
    return tiny.corpus()


@pytest.fixture
def everything_is_long(monkeypatch):
    monkeypatch.setattr(train_experiment, "LONG_SECONDS", 0.0)


def test_the_guess_is_of_the_right_size(monkeypatch):
    """PTB's small model of Zaremba et al. trained at 12,660 tokens/s on two cores: 16 minutes for 12 million."""
    monkeypatch.setattr(estimates, "available", lambda: 2)
    text = np.broadcast_to(np.uint16(0), 929_589)
    vocabulary = Vocabulary("word", tuple(map(str, range(10_000))))
    ptb = Corpus("ptb", vocabulary, {"train": text, "valid": text[:1000]}, {})
    setup = make_setup(get_config("small"), ptb)
    tokens = setup.total_steps * setup.task.tokens_per_step
    assert tokens / 12_660 / 3 < estimates.guess_seconds(setup) < tokens / 12_660 * 3


def test_a_short_run_says_nothing(tmp_path, corpus, capsys):
    train_experiment.run(tiny.config(), str(tmp_path / "run"), eta=True)
    assert "in all" not in capsys.readouterr().out


def test_a_long_run_says_how_long_and_ends_as_ever(tmp_path, corpus, capsys, everything_is_long):
    expected = train(make_setup(tiny.config(train__patience=5), corpus), tmp_path / "silent")
    capsys.readouterr()
    found = train_experiment.run(tiny.config(train__patience=5), str(tmp_path / "run"), eta=True)
    assert found["results"] == expected["results"]
    said = capsys.readouterr().out
    line = next(line for line in said.splitlines() if "in all" in line)
    assert line.startswith("12 steps of ")
    assert "unless config.train.patience=5 ends it sooner" in line
    assert "memory at the peak about " in line
    assert said.index(line) < said.index("step 0 of 12")


def test_it_says_nothing_without_being_asked_or_where_it_goes_on(tmp_path, corpus, capsys, everything_is_long):
    for _ in range(2):
        train_experiment.run(tiny.config(), str(tmp_path / "run"), eta=False)
    train_experiment.run(tiny.config(), str(tmp_path / "run"), eta=True)
    assert "in all" not in capsys.readouterr().out


@pytest.mark.parametrize("is_long", few([False, True], False))
def test_the_run_compiles_no_program_again(tmp_path, corpus, is_long):
    config = tiny.config(model__hidden=(4 + is_long,))  # no other test has compiled it
    with tiny.compilations() as before:
        assert bool(train_experiment.announce(make_setup(config, corpus), 0.0 if is_long else 1e9)) == is_long
    with tiny.compilations() as during:
        train(make_setup(config, corpus), tmp_path)
    steps, scores = f"jit({tiny.STEPS})", "jit(_stream_nats)"
    assert steps in before
    assert steps not in during
    assert (scores in before, scores in during) == (is_long, not is_long), "a short run compiles scoring when it scores"


def test_a_fresh_run_makes_one_setup_and_traces_the_initial_state_once(tmp_path, corpus, monkeypatch):
    made, traced = [], []
    monkeypatch.setattr(train_experiment, "make_setup", lambda *args: made.append(make_setup(*args)) or made[-1])
    shapes = Setup.state_shapes.func
    counted = functools.cached_property(lambda self: traced.append(self) or shapes(self))
    counted.__set_name__(Setup, "state_shapes")
    monkeypatch.setattr(Setup, "state_shapes", counted)
    train_experiment.run(tiny.config(checkpoint__best="keep"), str(tmp_path / "run"))
    assert len(made) == 1
    assert traced == made


def test_scoring_is_compiled_before_a_short_run_only_if_memory_may_not_suffice(corpus, monkeypatch):
    """The exact protocol scores windows of 61 tokens, 5 times a training window's."""
    setup = make_setup(tiny.config(evaluation__during="exact"), corpus)
    monkeypatch.setattr(memory, "resident_bytes", lambda: 0)  # else the first compilation in a process counts
    needed = memory.peak(setup)
    compiled = []
    monkeypatch.setattr(
        language_modelling, "compile_stream", lambda *args: compiled.append(args[0]) or compile_stream(*args)
    )
    monkeypatch.setattr("lm.machine.memory.free_bytes", lambda: 10**12)
    memory.peak(setup, all_programs=False)
    assert compiled == []
    memory.peak(make_setup(tiny.config(evaluation__during="dynamic"), corpus), all_programs=False)
    assert "dynamic" in compiled, "it keeps copies of the parameters"
    compiled.clear()
    monkeypatch.setattr("lm.machine.memory.free_bytes", lambda: needed + 10**6)
    monkeypatch.setattr(memory, "_scoring_share", lambda *args: 1e9)
    memory.peak(setup, all_programs=False)
    assert compiled == ["exact"]


def test_what_the_compiled_programs_cannot_have_is_refused_without_a_trace(tmp_path, corpus, monkeypatch):
    """A state of some hundred bytes, and the libraries alone need more than is free: check_memory lets it pass."""
    monkeypatch.setattr("lm.machine.memory.free_bytes", lambda: 10_000_000)
    memory.check_memory(make_setup(tiny.config(), corpus))
    for eta in (True, False):
        with pytest.raises(UserError, match="needs about"):
            train_experiment.run(tiny.config(), str(tmp_path / "run"), eta=eta)
    assert not (tmp_path / "run").exists()


def test_the_line():
    parts = (estimates.Part("start", 1, 1.0, 0.0), estimates.Part("training steps", 101, 0.5, 0.25))
    found = estimates.Estimate("tiny", 101, parts, 512_000_000, None, 0, 60)
    assert estimates.in_one_line(found) == (
        "101 steps of 250.000 ms, in all 0:00:26 (h:mm:ss); memory at the peak about 512 MB"
    )
