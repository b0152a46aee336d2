"""Training, scoring and sampling lower for CUDA, ROCm and TPU, without such a device: no program is for CPUs alone."""

import collections

import jax
import jax.numpy as jnp
import pytest

from experiments.train import load_setup
from lm.scoring import sampling
from lm.scoring.protocols import PROTOCOLS
from lm.tasks import TASKS
from lm.training.setup import make_setup
from lm.training.step import compile_steps
from tests.helpers import tiny
from tests.helpers.few import LSTM_FIRST, few
from tests.helpers.task_configs import config_of, small_corpora

PLATFORMS = ("cuda", "rocm", "tpu")


@pytest.fixture
def lowered(monkeypatch):
    """Counts the programs that the test lowers for each platform. Nothing is compiled."""
    counts, lower = collections.Counter(), jax.stages.Traced.lower

    def lower_for_all(traced, **options):
        for platform in PLATFORMS:
            result = lower(traced, **options | {"lowering_platforms": (platform,)})
            counts[platform] += 1
        return result

    monkeypatch.setattr(jax.stages.Traced, "lower", lower_for_all)
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda _: object.__new__(jax.stages.Compiled))
    return counts


@pytest.mark.parametrize("cell", LSTM_FIRST)
def test_language_models_of_every_cell(cell, lowered):
    config = tiny.config(model__cell=cell, model__hidden=(3, 4), keep_prob__output=0.5)
    config.evaluation.batch_size, config.evaluation.unroll = 3, 4
    config.model.projection = 2 if cell == "lstm_projection" else 0
    setup = make_setup(config, tiny.corpus())
    model, parameters, corpus = setup.task.model, setup.state_shapes.parameters, setup.corpus
    compile_steps(setup)
    for protocol in PROTOCOLS:
        setup.task.compile_score(parameters, corpus.splits["valid"], protocol, config.evaluation)
    rule = sampling.check_sample(config.sample, corpus.vocabulary, model.context)
    settings = sampling.Settings(1.0, 1.0, sampling.banned_symbols(config.sample, corpus.vocabulary))
    prompts = jnp.zeros((1, 2), jnp.int32)
    sampling._generate.lower(model, rule, 5, parameters, prompts, jax.random.key(0), settings).compile()
    assert lowered == dict.fromkeys(PLATFORMS, 2 + len(PROTOCOLS))


@pytest.mark.parametrize("task", few(sorted(TASKS), "translation"))
def test_every_task(task, lowered, tmp_path, monkeypatch):
    small_corpora(monkeypatch)
    config = config_of(task, tmp_path)
    setup = load_setup(config, None)
    compile_steps(setup)
    protocols = (config.evaluation.during, *config.evaluation.protocols)
    for protocol in protocols:
        split = setup.corpus.splits["train"]
        setup.task.compile_score(setup.state_shapes.parameters, split, protocol, config.evaluation)
    assert lowered == dict.fromkeys(PLATFORMS, 1 + len(protocols))


def test_what_only_a_cpu_can_lower_is_caught(lowered):
    def on_a_cpu(x):
        return jax.lax.platform_dependent(x, cpu=lambda x: x + 1)

    with pytest.raises(Exception, match="cuda"):
        jax.jit(on_a_cpu).lower(1.0)
    assert not lowered
