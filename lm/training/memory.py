"""Estimates the peak memory of a run before allocating anything.

On a CPU everything lies in the memory of the process; on an accelerator only what its programs hold is counted.
"""

import functools

import jax
import ml_collections

from lm.data.corpora import Corpus
from lm.errors import UserError
from lm.machine.memory import free_bytes, resident_bytes
from lm.model.language_model import count_parameters
from lm.scoring.protocols import PROTOCOLS, compile_stream
from lm.training.optim import Hyper, hyper_of
from lm.training.step import Experiment, TrainState, compile_steps, initial_state

# Host copies of the state while a checkpoint is written: the packed bytes, and what orbax makes of them.
CHECKPOINT_COPIES = 2
# What compiling, orbax and TensorBoard's writer take: 290 to 450 MB were measured, the more the larger the programs.
LIBRARIES = 350_000_000


def check(experiment: Experiment, copies: int = 1):
    """Raises UserError where what must be there at once exceeds the memory. Compiles nothing, allocates nothing.

    copies: states that must be there at once
    """
    config, streams = experiment.config, experiment.streams
    state, _ = shapes(experiment)
    outputs = 4 * streams.unroll * streams.batch_size * sum(map(experiment.model.cell.output_size, config.model.hidden))
    refuse_model(experiment, copies * size_of(state) + size_of(state.parameters) + outputs, "at least")
    sample, evaluation = config.sample, config.evaluation
    texts = 4 * sample.number * (sample.length + experiment.model.vocabulary_size)
    refuse_above_free(texts, "at least", "sampling", "config.sample.number or config.sample.length")
    if any(PROTOCOLS[name].extent == "predictions" for name in (evaluation.during, *evaluation.protocols)):
        positions = 8 * evaluation.predictions * (experiment.model.context + 1)
        refuse_above_free(positions, "at least", "a notebook's protocol", "config.evaluation.predictions")


def refuse_model(experiment: Experiment, needed: int, how: str):
    """Raises UserError where the `needed` bytes of a model and its training are more than there are."""
    parameters = count_parameters(shapes(experiment)[0].parameters)
    what = f"config.model.hidden={tuple(experiment.config.model.hidden)} with {parameters:,} parameters"
    keys = "config.model.hidden, config.model.embedding_size, config.data.batch_size or config.data.unroll"
    refuse_above_free(needed, how, what, keys)


def refuse_above_free(needed: int, how: str, what: str, keys: str):
    """Raises UserError where `needed` bytes are more than there are. keys: of the config, those to lower."""
    free = free_bytes()
    if free is not None and needed > free:
        raise UserError(
            f"{what} needs {how} {megabytes(needed)} of memory and {megabytes(free)} are free: lower {keys}"
        )


def peak(experiment: Experiment, corpus: Corpus) -> int:
    """Bytes at the run's peak: what the process holds now, the state, and the most that a program or a save adds.

    The compiler says what each program needs: training, and every protocol's scoring. Allocates nothing.
    Raises UserError where that is more than there is.
    """
    check(experiment)
    before = resident_bytes()
    config, (state, hyper) = experiment.config, shapes(experiment)
    tokens = corpus.splits["train"]
    programs = [compile_steps(experiment, state, jax.ShapeDtypeStruct(tokens.shape, tokens.dtype), hyper)]
    programs += [
        compile_stream(protocol, experiment.model, state.parameters, corpus.splits[split], config.evaluation)
        for split, protocol in scorings(config, corpus)
    ]
    above = max(_above_arguments(program.memory_analysis()) for program in programs)
    copies = CHECKPOINT_COPIES * size_of(state)
    on_cpu = jax.default_backend() == "cpu"
    each = config.train.devices if on_cpu else 1  # virtual devices of a CPU share one memory
    adds = tokens.nbytes + each * (size_of(state) + above) + (LIBRARIES + copies if on_cpu else 0)
    refuse_model(experiment, adds, "about")
    return adds + (before if on_cpu else 0)


def scorings(config: ml_collections.ConfigDict, corpus: Corpus) -> list[tuple[str, str]]:
    """(split, protocol) of all that a run scores on splits that are loaded, each once, validation first."""
    pairs = [("valid", config.evaluation.during)]
    pairs += [(split, protocol) for split in config.evaluation.splits for protocol in config.evaluation.protocols]
    return [(split, protocol) for split, protocol in dict.fromkeys(pairs) if split in corpus.splits]


def shapes(experiment: Experiment) -> tuple[TrainState, Hyper]:
    """The state before the first step as ShapeDtypeStructs, and the hyperparameters (scalars)."""
    hyper = hyper_of(experiment.config)
    return jax.eval_shape(functools.partial(initial_state, experiment, hyper)), hyper


def size_of(tree) -> int:
    """Bytes of all arrays of a pytree, or of their ShapeDtypeStructs."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _above_arguments(analysis) -> int:
    """Bytes that a program needs beside its arguments, from XLA's memory analysis."""
    if analysis is None:  # a backend that does not say
        return 0
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes


def megabytes(size: int) -> str:
    return f"{round(size / 1e6):,} MB"
