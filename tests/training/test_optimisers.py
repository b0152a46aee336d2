"""Optimisers against torch; averaging, plateaus and an early end, as whole runs whose validation is scripted."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.errors import UserError
from lm.runs import schema
from lm.runs.workdir import prepare_workdir
from lm.scoring.score import Score
from lm.training import optim, validation
from lm.training.loop import Trainer
from lm.training.optim import hyper_of
from lm.training.recorder import Recorder
from lm.training.setup import make_setup
from lm.training.state import evaluated_parameters
from lm.training.step import train_steps
from lm.training.validation import Checks, decide
from tests.helpers import tiny

# --- torch ------------------------------------------------------------------------------------------------------

MOMENTS = {"optim__momentum": 0.8, "optim__beta1": 0.7, "optim__beta2": 0.95, "optim__epsilon": 1e-3}
TORCH = {  # our name -> (torch's class, its arguments)
    "sgd": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.8}),
    "nesterov": ("SGD", {"momentum": 0.8, "nesterov": True}),
    "rmsprop": ("RMSprop", {"alpha": 0.95, "eps": 1e-3}),
    "adam": ("Adam", {"betas": (0.7, 0.95), "eps": 1e-3}),
    "adamw": ("AdamW", {"betas": (0.7, 0.95), "eps": 1e-3}),
}


def test_five_steps_are_torchs():
    """With clipping before, and weight decay as torch defines it for each: L2, but for AdamW."""
    torch = pytest.importorskip("torch", reason="torch, which is only for tests, is not installed")
    rng = np.random.default_rng(0)
    start = {"b": rng.normal(size=3), "w": rng.normal(size=(4, 3))}
    gradients = [{name: rng.normal(size=x.shape) for name, x in start.items()} for _ in range(5)]
    cases = [(name, clipping) for name in TORCH for clipping in ("global_norm", "value")]

    @jax.jit
    def ours(parameters, gradients):
        found = {}
        for name, clipping in cases:
            config = tiny.config(
                optim__name=name, optim__clipping=clipping, optim__clip=0.9, optim__weight_decay=0.1, **MOMENTS
            )
            chain = optim.transformation(config.optim, hyper_of(config))
            state, p = chain.init(parameters), parameters
            for g in gradients:
                updates, state = chain.update(g, state, p)
                p = jax.tree.map(lambda x, update: x - 0.1 * update, p, updates)
            found[f"{name} {clipping}"] = p
        return found

    found = ours(*jax.tree.map(jnp.float32, (start, gradients)))
    for name, clipping in cases:
        tensors = {key: torch.tensor(x, requires_grad=True) for key, x in start.items()}
        kind, arguments = TORCH[name]
        optimiser = getattr(torch.optim, kind)(tensors.values(), lr=0.1, weight_decay=0.1, **arguments)
        for g in gradients:
            for key, tensor in tensors.items():
                tensor.grad = torch.tensor(g[key])
            if clipping == "value":
                torch.nn.utils.clip_grad_value_(tensors.values(), 0.9)
            else:
                torch.nn.utils.clip_grad_norm_(tensors.values(), 0.9)
            optimiser.step()
        for key, tensor in tensors.items():
            expected = tensor.detach().numpy()
            np.testing.assert_allclose(found[f"{name} {clipping}"][key], expected, rtol=2e-5, atol=2e-6)


# --- What validation decides ------------------------------------------------------------------------------------


def decisions(losses, **changes):
    """Steps (from 0) at which each decision falls, where check i has losses[i] and is made after step i."""
    config, checks, found = tiny.config(**changes), Checks(), {name: [] for name in validation.Decision._fields}
    for step, nats in enumerate(losses):
        if not checks.stopped:
            checks, decision = decide(config, checks, nats, step)
            checks = schema.build(validation.Checks, json.loads(json.dumps(checks._asdict())), "checks")
            for name, yes in decision._asdict().items():
                found[name] += [step] if yes else []
    return found


def test_averaging_begins_where_awd_lstm_lm_begins_it():
    for seed in range(30):
        losses = np.random.default_rng(seed).normal(size=20) - 0.1 * np.arange(20)
        for n in (1, 3, 5):
            earlier, begin = [], []
            for step, loss in enumerate(losses):  # the rule of awd-lstm-lm's main.py
                if not begin and len(earlier) > n and loss > min(earlier[:-n]):
                    begin = [step]
                earlier.append(loss)
            found = decisions(losses.tolist(), optim__name="nt_asgd", optim__nonmonotone_checks=n)
            assert found["average"] == begin


def test_plateaus_decay_the_rate_and_count_anew():
    losses = [5.0, 4.0, 4.5, 4.5, 4.5, 4.5, 4.5, 3.0, 3.0, 3.0]
    plateau = {"optim__schedule": "plateau", "optim__decay_rate": 0.5}
    assert decisions(losses, **plateau, optim__patience=2)["decay"] == [3, 5, 9]
    assert decisions(losses, **plateau, optim__patience=1)["decay"] == [2, 3, 4, 5, 6, 8, 9]
    assert decisions(losses)["decay"] == []
    assert decisions(losses)["best"] == [0, 1, 7]


def test_patience_ends_a_run():
    losses = [5.0, 4.0, 4.5, 3.0, float("nan"), 3.0, 1.0]
    assert decisions(losses, train__patience=2)["stop"] == [5]
    assert decisions(losses, train__patience=1)["stop"] == [2]
    assert decisions(losses)["stop"] == []


# --- Whole runs -------------------------------------------------------------------------------------------------

SCRIPT = (5.0, 4.0, 3.0, 3.5, 3.2, 2.9, 3.1, 3.3, 2.95, 2.8, 3.0, 3.0)
AVERAGED_FROM = 6  # 3.1 is the first above min(5, 4, 3, 3.5), all but the two newest checks before it
SETTINGS = {
    "optim__name": "nt_asgd",
    "optim__nonmonotone_checks": 2,
    "optim__schedule": "plateau",
    "optim__patience": 2,
    "optim__decay_rate": 0.5,
    "optim__learning_rate": 0.5,
    "train__evaluate_every": 1,
    "train__report_every": 1,
    "checkpoint__every_steps": 3,
    "checkpoint__best": "keep",
}


class Killed(Exception):
    pass


class ScriptedRecorder(Recorder):
    """Validation after step s gives script[s]; dies at the check after step `dies`. Keeps all parameters seen."""

    script, dies = SCRIPT, None

    def __init__(self, *arguments):
        self.seen, self.scored = {}, {}
        super().__init__(*arguments)

    def score(self, state, split, protocol):
        step = int(state.step) - 1
        if step == self.dies:
            raise Killed
        self.seen[step] = jax.tree.map(lambda x: np.array(x, np.float64), state.parameters)
        self.scored[step] = jax.tree.map(np.array, evaluated_parameters(state))
        return Score(self.script[step], 1)

    def sample(self, state, key=None):
        return []


def trained(workdir, dies=None, script=SCRIPT, **changes):
    """A run in workdir -> (trainer, rows of metrics.jsonl without what a clock decides, summary)."""
    config = tiny.config(**(SETTINGS | changes))
    prepare_workdir(workdir, config)
    recorder = ScriptedRecorder(make_setup(config, tiny.corpus()), workdir)
    recorder.script, recorder.dies = script, dies
    trainer = Trainer(recorder)
    try:
        summary = trainer.run()
    except Killed:
        summary = None
    trainer.recorder.checkpoints.close()
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return trainer, [{key: row[key] for key in row if key != "tokens_per_s"} for row in rows], summary


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with tiny.compilations() as compiled:
        return *trained(tmp_path_factory.mktemp("run")), compiled


@pytest.mark.slow
def test_the_average_is_that_of_all_parameters_since_its_trigger(run):
    trainer, *_ = run
    assert int(trainer.state.average.count) == len(SCRIPT) - AVERAGED_FROM
    for step, scored in trainer.recorder.scored.items():
        # The check that triggers is still one of the parameters; from the next on, the average is what is scored.
        first = AVERAGED_FROM if step > AVERAGED_FROM else step
        expected = [trainer.recorder.seen[s] for s in range(first, step + 1)]
        jax.tree.map(lambda x, *xs: np.testing.assert_allclose(x, np.mean(xs, 0), atol=1e-6), scored, *expected)
    moved = jax.tree.map(lambda x, y: np.abs(x - y).max(), trainer.recorder.scored[11], trainer.recorder.seen[11])
    assert max(jax.tree.leaves(moved)) > 1e-3, "average and parameters are alike: the test shows nothing"


def test_the_best_checkpoint_scores_its_average(run):
    trainer, _, summary, _ = run
    state, extra, step = trainer.recorder.checkpoints.restore(trainer.state, which="best")
    assert step == 10
    assert extra["checks"]["best_step"] == 9
    assert int(state.average.count) == 9 - AVERAGED_FROM + 1
    jax.tree.map(np.testing.assert_array_equal, evaluated_parameters(state), trainer.recorder.scored[9])
    rows = {row["which"]: row for row in summary["results"]}
    assert rows["best"]["nats"] == 2.8
    assert rows["final"]["nats"] == 3.0


def test_the_rate_decays_on_plateaus(run):
    trainer, rows, *_ = run
    # No better: checks 3 and 4; 6 and 7; 10 and 11. The check's own step has still the old rate.
    assert [row["learning_rate"] for row in rows] == [0.5] * 5 + [0.25] * 3 + [0.125] * 4
    assert float(trainer.state.rate_factor) == 0.125


def test_neither_compiles_the_step_anew(run, tmp_path):
    """Nor do other numbers in the config."""
    *_, compiled = run
    assert len([name for name in compiled if tiny.STEPS in name]) == 1
    changes = {
        "optim__learning_rate": 0.1,
        "optim__decay_rate": 0.3,
        "optim__patience": 1,
        "optim__clip": 2.0,
        "optim__nonmonotone_checks": 1,
        "train__patience": 5,
        "seed": 3,
    }
    with tiny.compilations() as compiled:
        trainer, *_ = trained(tmp_path, **changes)
    assert not [name for name in compiled if tiny.STEPS in name]
    assert float(trainer.state.rate_factor) < 0.05


@pytest.mark.parametrize("dies", [5, 8, 11], ids=["before the average", "after it began", "at the end"])
def test_a_killed_run_ends_bitwise_the_same(run, tmp_path, dies):
    whole, rows, *_ = run
    assert trained(tmp_path, dies)[2] is None
    found, found_rows, _ = trained(tmp_path)
    pairs = jax.tree.leaves(found.state._replace(key=None)), jax.tree.leaves(whole.state._replace(key=None))
    for x, y in zip(*pairs, strict=True):
        np.testing.assert_array_equal(x, y)
    assert found.recorder.checks == whole.recorder.checks
    assert found_rows == rows


def test_an_early_end_is_an_end(tmp_path):
    script = (5.0, 4.0, 3.0, 3.5, 3.2, 3.1, 0.1, 0.1)
    changes = {"train__patience": 3, "checkpoint__every_steps": 1000}
    stopped, rows, summary = trained(tmp_path, script=script, **changes)
    assert (stopped.recorder.done, summary["train"]["steps"], rows[-1]["step"]) == (6, 6, 5)
    assert {row["which"]: row["nats"] for row in summary["results"]} == {"final": 3.1, "best": 3.0}
    again, rows_again, summary_again = trained(tmp_path, script=script, **changes)
    assert again.recorder.checks.stopped
    assert again.recorder.done == 6
    assert rows_again == rows
    assert summary_again["results"] == summary["results"]


def test_asgd_averages_from_its_step_on():
    config = tiny.config(optim__name="asgd", optim__average_from=2, optim__learning_rate=0.5)
    corpus = tiny.corpus()
    setup, hyper = make_setup(config, corpus), hyper_of(config)
    state, tokens, seen = tiny.state(setup), jnp.asarray(corpus.splits["train"]), []
    state = state._replace(average=optim.no_average(state.parameters))
    for step in range(6):
        state, _ = train_steps(setup, state, tokens, hyper, 1)
        seen.append(jax.tree.map(np.array, state.parameters))
        expected = [seen[-1]] if step < 2 else seen[2:]
        found = evaluated_parameters(state)
        jax.tree.map(lambda x, *xs: np.testing.assert_allclose(x, np.mean(xs, 0), atol=1e-6), found, *expected)
    # Averaging is no part of the path: the parameters are those of plain SGD, whose state has no average at all.
    sgd = make_setup(tiny.config(optim__learning_rate=0.5), corpus)
    plain = tiny.state(sgd)
    assert plain.average is None
    plain, _ = train_steps(sgd, plain, tokens, hyper, 4)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, plain.parameters), seen[3])


@pytest.mark.slow
def test_strengths_of_regularisers_compile_nothing():
    off = {"model__input": "embedding", "model__embedding_size": 3, "optim__weight_decay": 0.01}
    sites = tiny.config().keep_prob
    corpus = tiny.corpus()
    tokens = jnp.asarray(corpus.splits["train"])

    def run(keep, zoneout, factor, smoothing):
        changes = {f"keep_prob__{site}": keep for site in sites} | {
            "zoneout__memory": zoneout,
            "zoneout__output": zoneout,
            "penalty__activation": factor,
            "penalty__temporal_activation": factor,
            "loss__label_smoothing": smoothing,
        }
        config = tiny.config(**off, **changes)
        setup, hyper = make_setup(config, corpus), hyper_of(config)
        state = tiny.state(setup)
        state = state._replace(key=jax.random.key(0, impl="unsafe_rbg"))  # whose programs compile fastest
        with tiny.compilations() as compiled:
            losses = np.asarray(train_steps(setup, state, tokens, hyper, 3)[1].loss)
        return compiled, losses

    compiled, first = run(0.8, 0.1, 1.0, 0.1)
    assert any(tiny.STEPS in name for name in compiled)
    compiled, second = run(0.5, 0.2, 2.0, 0.05)
    assert not compiled
    assert (first[:3] != second[:3]).all()


# --- Errors -----------------------------------------------------------------------------------------------------

NEEDS_VALIDATION = {
    "config.train.patience": {"train__patience": 2},
    "config.optim.schedule=plateau": {"optim__schedule": "plateau", "optim__decay_rate": 0.5},
    "config.optim.name=nt_asgd": {"optim__name": "nt_asgd"},
    "config.checkpoint.best=keep": {"checkpoint__best": "keep"},
}


@pytest.mark.parametrize("key", NEEDS_VALIDATION)
def test_what_needs_a_validation_text_says_so(key):
    corpus = tiny.corpus()
    config = tiny.config(**NEEDS_VALIDATION[key])
    make_setup(config, corpus)
    with pytest.raises(UserError, match=f"^{key}.*needs a validation text"):
        make_setup(config, corpus._replace(splits={"train": corpus.splits["train"]}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optim.momentum", 1.0),
        ("optim.beta1", 1.0),
        ("optim.beta2", -0.1),
        ("optim.epsilon", 0.0),
        ("optim.weight_decay", -1e-6),
        ("optim.decay_rate", 0.0),
        ("optim.decay_steps", 0),
        ("optim.patience", 0),
        ("optim.hold_epochs", -1),
        ("optim.warmup_steps", -1),
        ("optim.final_fraction", 1.5),
        ("optim.average_from", -1),
        ("optim.nonmonotone_checks", 0),
        ("optim.learning_rate", float("inf")),
        ("optim.schedule", "plateau"),
        ("train.patience", -1),
        ("checkpoint.best", "best"),
    ],
)
def test_values_out_of_range_are_named(key, value):
    config = tiny.config(**{key.replace(".", "__"): value})
    named = "optim.decay_rate" if value == "plateau" else key  # a plateau that does not lower the rate
    with pytest.raises(UserError, match=f"^config.{named}"):
        make_setup(config, tiny.corpus())
