"""Estimates the peak memory of a run before allocating anything.

On a CPU all memory of the process counts; on an accelerator only the arrays and buffers of its programs.
"""

import jax
import ml_collections

from lm.machine import memory as machine
from lm.machine.memory import reject_above_free, resident_bytes
from lm.model.language_model import count_parameters
from lm.training.setup import Setup
from lm.training.step import compile_steps

# Host copies of the state while a checkpoint is written: the packed bytes, and orbax's copy of them.
CHECKPOINT_COPIES = 2
# Bytes for compiling, orbax and TensorBoard's writer: 290 to 450 MB were measured, more for larger programs.
LIBRARIES = 350_000_000


def check_memory(setup: Setup, copies: int = 1):
    """Raises UserError if the parameters and `copies` states cannot fit in memory. Neither compiles nor allocates."""
    config, task, state = setup.config, setup.task, setup.state_shapes
    gradients, outputs = size_of(state.parameters), 4 * task.activations
    reject_model(setup, copies * size_of(state) + gradients + outputs, "at least")
    task.check_memory(config)


def reject_model(setup: Setup, needed: int, qualifier: str):
    """Raises UserError if a model and its training need more than the free memory. qualifier: "at least", "about"."""
    parameters = count_parameters(setup.state_shapes.parameters)
    subject = f"config.model.hidden={tuple(setup.config.model.hidden)} with {parameters:,} parameters"
    keys = "config.model.hidden, config.model.embedding_size, config.data.batch_size or config.data.unroll"
    reject_above_free(needed, qualifier, subject, keys)


def peak(setup: Setup, all_programs: bool = True) -> int:
    """Estimates the peak bytes of a run: data, state and its largest program; on a CPU also the process and a save.

    Compiles the programs to learn their sizes; the run reuses them. Allocates no arrays.
    all_programs: always compile scoring; False: only if it could need more than a quarter of the free memory
    Raises UserError if the run needs more than the free memory.
    """
    check_memory(setup)
    before, free = resident_bytes(), machine.free_bytes()
    config, state, corpus = setup.config, setup.state_shapes, setup.corpus
    training, scored = _above_arguments(compile_steps(setup).memory_analysis()), scorings(config, corpus.splits)
    if not all_programs and (free is None or training * _scoring_share(setup, scored) <= free / 4):
        scored = []
    programs = [
        setup.task.compile_score(state.parameters, corpus.splits[split], protocol, config.evaluation)
        for split, protocol in scored
    ]
    above = max([training, *(_above_arguments(program.memory_analysis()) for program in programs)])
    copies = CHECKPOINT_COPIES * size_of(state)
    on_cpu = jax.default_backend() == "cpu"
    replicas = config.train.devices if on_cpu else 1  # virtual devices of a CPU share one memory
    added = size_of(setup.data_shapes) + replicas * (size_of(state) + above) + (LIBRARIES + copies if on_cpu else 0)
    reject_model(setup, added, "about")
    return added + (before if on_cpu else 0)


def _scoring_share(setup: Setup, scored: list[tuple[str, str]]) -> float:
    """Tokens of the largest scored window relative to those of the largest training batch.

    Scoring needs at most about this share of the memory of training, which also keeps what the backward pass reads.
    Infinite if a protocol keeps more: all logits, or copies of the parameters.
    """
    evaluation, splits = setup.config.evaluation, setup.corpus.splits
    windows = [setup.task.window_tokens(splits[split], protocol, evaluation) for split, protocol in scored]
    return max(windows, default=0) / setup.task.largest_batch


def scorings(config: ml_collections.ConfigDict, splits) -> list[tuple[str, str]]:
    """Each (split, protocol) that a run scores on loaded splits, validation first."""
    pairs = [("valid", config.evaluation.during)]
    pairs += [(split, protocol) for split in config.evaluation.splits for protocol in config.evaluation.protocols]
    return [(split, protocol) for split, protocol in dict.fromkeys(pairs) if split in splits]


def size_of(tree) -> int:
    """Bytes of all arrays or ShapeDtypeStructs of a pytree."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _above_arguments(analysis) -> int:
    """Bytes that a program needs besides its arguments, from XLA's memory analysis."""
    if analysis is None:  # a backend without memory analysis
        return 0
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
