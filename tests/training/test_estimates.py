"""Preflight: the sum by hand, the counts against a real run, refusals before anything is allocated, no trace."""

import collections
import json

import jax
import numpy as np
import pytest

from configs.base import base
from experiments import train as train_experiment
from lm.errors import UserError
from lm.machine.clock import h_mm_ss
from lm.model.language_model import count_parameters
from lm.runs.checkpoint import Checkpoints
from lm.scoring import protocols
from lm.training import estimates, memory, timing
from lm.training.estimates import Part, Times, assemble, count_events
from lm.training.lanes import train_lanes
from lm.training.loop import train
from lm.training.setup import make_setup
from tests.helpers import tiny


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Times little: what is tested is not how exact the times are."""
    monkeypatch.setattr(timing, "TIMED_DISPATCHES", 2)
    monkeypatch.setattr(timing, "TIMED_SECONDS", 0.01)


def written(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    samples = (workdir / "samples.txt").read_text().count("\nstep ")
    return {
        "report": len(rows),
        "validation": sum("valid_loss" in row for row in rows),
        "epoch": sum("epoch_perplexity" in row for row in rows),
        "sample": samples,
    }


# --- How often


@pytest.mark.parametrize(
    "changes",
    [
        dict(train__steps=23, train__evaluate_every=6, train__sample_every=10, checkpoint__every_steps=9),
        dict(train__steps=0, train__epochs=2, data__batching="rows", train__evaluate_every=0, train__report_every=7),
    ],
    ids=["heads", "rows"],
)
def test_events_are_those_that_a_run_makes(changes, tmp_path, monkeypatch):
    config, corpus, saved = tiny.config(**changes), tiny.corpus(train=203), []
    save = Checkpoints.save
    monkeypatch.setattr(Checkpoints, "save", lambda self, step, *rest: (saved.append(step), save(self, step, *rest))[1])
    counts = count_events(make_setup(config, corpus))
    train(make_setup(config, corpus), tmp_path)
    found = written(tmp_path) | {"checkpoint": len(saved)}
    assert {name: counts[name] for name in found} == found
    assert found["validation"] >= 2
    assert found["checkpoint"] >= 1


def test_a_very_long_run_is_counted_from_its_beginning(monkeypatch):
    config, corpus = tiny.config(train__steps=40_000, train__evaluate_every=30), tiny.corpus()
    setup = make_setup(config, corpus)
    whole = count_events(setup)
    monkeypatch.setattr(estimates, "COUNTED_STEPS", 4_000)
    part = count_events(setup)
    assert part.keys() >= {"dispatch", "report", "validation", "checkpoint"}
    for name, count in part.items():
        assert count == pytest.approx(whole[name], rel=0.01, abs=10), name


def test_without_a_validation_text_there_is_no_validation():
    config, corpus = tiny.config(), tiny.corpus()
    corpus = corpus._replace(splits={"train": corpus.splits["train"]})
    assert count_events(make_setup(config, corpus))["validation"] == 0


# --- The sum


TIMES = Times(
    setup=2.0,
    step=(3.0, 0.5),
    report=(0.25, 0.125),
    sample=(1.0, 0.5),
    save=(2.0, 1.0),
    scores={("valid", "exact"): (5.0, 4.0), ("valid", "batched"): (7.0, 6.0)},
)


def parts_of(config, **counts):
    setup = make_setup(config, tiny.corpus())
    return {part.name: part for part in assemble(setup, collections.Counter(counts), TIMES, startup=1.0)}


def test_the_sum_by_hand():
    config = tiny.config(train__steps=11, evaluation__protocols=("exact", "batched"), evaluation__unroll=2)
    parts = parts_of(config, report=3, validation=2, checkpoint=4, sample=1)
    assert {name: part.seconds for name, part in parts.items()} == {
        "start": 3.0,
        "training steps": 3.0 + 10 * 0.5,
        "reports": 0.25 + 2 * 0.125,
        "validation (exact)": 5.0 + 4.0,
        "checkpoints": 2.0 + 3 * 1.0,
        "samples": 1.0 + 0.5,  # the summary's too
        "final score: valid, exact": 4.0,  # compiled for validation already
        "final score: valid, batched": 7.0,
    }


def test_the_best_checkpoint_is_saved_and_scored_too():
    parts = parts_of(tiny.config(checkpoint__best="keep"), validation=2, checkpoint=4, sample=1)
    assert parts["checkpoints"].count == 6
    assert parts["final score: valid, exact"].seconds == 8.0


def test_a_part_that_never_happens_costs_nothing():
    assert Part("validation", 0, 5.0, 4.0).seconds == 0


@pytest.mark.parametrize(("load", "said"), [(2.9, ""), (5.25, "load 5.2 on 2 cores")])
def test_a_busy_machine_is_said(load, said, monkeypatch):
    monkeypatch.setattr(estimates, "available", lambda: 2)
    monkeypatch.setattr(estimates.os, "getloadavg", lambda: (load, 0.0, 0.0))
    assert estimates.foreign_load() == said


def test_what_is_known_of_a_test_split_that_is_not_read():
    config = base()
    shares = {}
    for name in (
        "ptb",
        "tiny_shakespeare",
        "synthetic",
        "text8",
        "text8_90_5_5",
        "enwik8",
        "shakespeare_book",
        "multi30k",
        "addition",
        "parity",
        "atis",
    ):
        config.data.corpus = name
        shares[name] = estimates.unread_share(config)
    assert shares == {
        "ptb": 449_945 / 399_782,
        "tiny_shakespeare": 1.0,
        "synthetic": 1.0,
        "text8": None,
        "text8_90_5_5": 1.0,
        "enwik8": 1.0,
        "shakespeare_book": None,
        "multi30k": (21_966 + 20_726) / (23_687 + 21_317),
        "addition": 1.0,
        "parity": 296 / 41,  # mean lengths 148 and 20.5
        "atis": (43_820 + 40_663) / (0.1 * (265_055 + 247_359)),
    }


# --- Real estimates


@pytest.fixture
def embedded():
    """A config of the built-in corpus, with three splits."""
    config = base()
    config.name = "tiny/embedded"
    config.data.size, config.data.batch_size, config.data.unroll = 3000, 3, 4
    config.model.hidden = (3,)
    config.train.steps, config.train.patience = 40, 2
    config.train.evaluate_every = 10
    config.evaluation.splits = ("valid", "test")
    config.sample.number, config.sample.length = 2, 12
    return config


@pytest.mark.slow
def test_a_dry_run_prints_the_estimate_and_leaves_nothing(embedded, tmp_path, monkeypatch, capsys):
    asked = []
    load = train_experiment.load
    monkeypatch.setattr(train_experiment, "load", lambda *arguments: (asked.append(arguments[2]), load(*arguments))[1])
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(timing.tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    found = train_experiment.run(embedded, str(tmp_path / "run"), dry_run=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["temporary"]
    assert asked == [("train", "valid")]
    out = capsys.readouterr().out
    assert f"ETA {h_mm_ss(found.seconds)}" in out
    assert "config.train.patience=2 may end it sooner" in out
    assert "40 steps" in out
    assert "test is not read" in out
    names = {part.name: part.count for part in found.parts}
    assert names["validation (exact)"] == 5
    assert names["final score: test, exact"] == 1
    assert found.seconds > sum(part.first for part in found.parts if part.count) - 1e-9
    assert all(part.first >= 0 and part.later >= 0 for part in found.parts)
    assert found.memory > memory.size_of(make_setup(embedded, tiny.corpus()).state_shapes)


def test_several_configs_of_one_shape_are_timed_once(monkeypatch, capsys):
    measured = []

    def measure(setup):
        measured.append(setup.config.model.hidden)
        return TIMES._replace(step=(3.0, float(setup.config.model.hidden[0])))

    monkeypatch.setattr(timing, "measure", measure)
    monkeypatch.setattr(memory, "peak", lambda setup: 10**6)
    configs = [
        tiny.config(seed=1),
        tiny.config(model__hidden=(5,)),
        tiny.config(seed=2, optim__learning_rate=3.0, train__steps=24),  # of the first one's shape, twice as long
        tiny.config(keep_prob__output=0.5),  # dropout is another program
    ]
    monkeypatch.setattr(train_experiment, "load", lambda *arguments: tiny.corpus())
    found = train_experiment.estimate_all(configs, None, jobs=2)
    assert measured == [(3,), (5,), (3,)]
    steps = [next(part for part in each.parts if part.name == "training steps") for each in found]
    assert [part.seconds for part in steps] == [3 + 11 * 3, 3 + 11 * 5, 3 + 23 * 3, 3 + 11 * 3]
    total = sum(each.seconds for each in found)
    text = capsys.readouterr().out
    assert f"4 runs: {total / 3600:.2f} hours" in text
    assert f"at least {total / 7200:.2f} hours" in text


# --- Memory


def test_what_no_machine_holds_is_refused_before_it_is_allocated(tmp_path, monkeypatch):
    """An LSTM of 200,000 units has 160 billion recurrent weights."""
    config, corpus = tiny.config(model__hidden=(200_000,)), tiny.corpus()
    before = memory.resident_bytes()
    for attempt in (
        lambda: train(make_setup(config, corpus), tmp_path / "run"),
        lambda: timing.estimate(make_setup(config, corpus)),
    ):
        with pytest.raises(UserError, match=r"config\.model\.hidden=\(200000,\).* at least .* MB") as caught:
            attempt()
        assert "\n" not in str(caught.value)
    assert memory.resident_bytes() - before < 200e6
    assert not (tmp_path / "run").exists()


def test_lanes_count_a_state_each(tmp_path, monkeypatch):
    """Memory for two states of this model, but not for three."""
    config, corpus = tiny.config(model__hidden=(3000,)), tiny.corpus()
    state = memory.size_of(make_setup(config, corpus).state_shapes)
    monkeypatch.setattr("lm.machine.memory.free_bytes", lambda: 3.5 * state)
    memory.check_memory(make_setup(config, corpus), copies=2)
    with pytest.raises(UserError, match=r"needs at least .* MB of memory"):
        train_lanes(tiny.setups([config] * 3), [tmp_path / str(n) for n in range(3)])
    assert not list(tmp_path.iterdir())


def test_the_programs_count_too(monkeypatch):
    """A long window holds little state and much in between: only the compiler knows of it."""
    config, corpus = tiny.config(data__unroll=2000, data__batch_size=2), tiny.corpus(train=9000)
    setup = make_setup(config, corpus)
    state = memory.size_of(setup.state_shapes)
    windows = 4 * 2000 * 2 * 3  # one float32 [T, B, H]
    monkeypatch.setattr(memory, "resident_bytes", lambda: 1000)
    needed = memory.peak(setup)
    assert needed > 1000 + state + windows
    monkeypatch.setattr("lm.machine.memory.free_bytes", lambda: needed - 1000)
    assert memory.peak(setup) == needed
    monkeypatch.setattr("lm.machine.memory.free_bytes", lambda: needed - 1001)
    memory.check_memory(setup)
    with pytest.raises(UserError, match=r"needs about .*config\.data\.unroll"):
        memory.peak(setup)


def test_the_size_of_a_state_is_that_of_its_arrays():
    setup = make_setup(tiny.config(optim__name="adam"), tiny.corpus())
    shapes = setup.state_shapes
    state = setup.initial_state()
    state = state._replace(key=jax.random.key_data(state.key))
    assert memory.size_of(shapes) == sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(state))
    assert memory.size_of(shapes) > 3 * 4 * count_parameters(state.parameters)  # Adam's two moments


@pytest.mark.parametrize("protocol", ["notebook", "batched", "exact"])
def test_window_shapes_are_those_that_are_scored(protocol, monkeypatch):
    model, parameters = tiny.model()
    settings = tiny.config(evaluation__batch_size=2, evaluation__unroll=5, evaluation__predictions=7).evaluation
    seen = []
    score = protocols._stream_nats
    monkeypatch.setattr(protocols, "_stream_nats", lambda *a: (seen.append(a[2].shape), score(*a))[1])
    protocols.evaluate(protocol, model, parameters, tiny.text(61), settings)
    assert seen == [protocols.window_shape(protocol, model, 61, settings)]
