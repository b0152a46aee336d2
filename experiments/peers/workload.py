"""Workloads: model sizes, the work to measure, and the initial parameters and tokens that all libraries share.

Tokens are random, since speed does not depend on their values. Only NumPy is imported, so that the measured memory of
one library does not include another.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

GATES = {"lstm": 4, "gru": 3, "elman": 1}

# Kinds of work on labelled sequences: experiments/peers/sequences.py.
LABELLED = ("classify", "padding")

# Number of windows in a training text. After the last one, training restarts at the first.
WINDOWS = 40


class Workload(NamedTuple):
    """One model and one kind of work.

    kind: train (a unit of work is an optimiser step), evaluate (a unit scores one text as a stream of batch size 1),
        sample (a unit generates `batch` texts), classify (a unit is a step of Adam on labelled sequences) or padding
        (the same, only for this project)
    cell: lstm, gru (reset after the product, as in flax, torch and keras) or elman (tanh)
    embedding: E; 0: one-hot input
    unroll: T, tokens per window; evaluate: the peers' T (this project's is lm.scoring.protocols.EXACT_UNROLL);
        classify: mean length of a sequence, which is the floor's T
    keep_prob: keep probability of the input, between layers and of the output (Zaremba et al. 2014)
    weighting: config.loss.weighting, mean or sum_over_time (lm/model/losses.py)
    learning_rate, clip: SGD's learning rate; clipping threshold of the global norm
    threads: config.train.threads of this project
    length: evaluate: targets in the text; sample: tokens in each text, including its random start; classify: maximum
        length of a sequence
    buckets, sequences: classify: numbers of this project's buckets and of the corpus's sequences
    """

    name: str
    kind: str
    cell: str
    embedding: int
    hidden: tuple[int, ...]
    vocabulary: int
    batch: int
    unroll: int
    keep_prob: float = 1.0
    weighting: str = "mean"
    learning_rate: float = 1.0
    clip: float = 5.0
    length: int = 0
    threads: int = 0
    buckets: int = 0
    sequences: int = 0

    @property
    def labelled(self) -> bool:
        return self.kind in LABELLED

    @property
    def tokens(self) -> int:
        """Tokens that one unit of work scores or generates; the mean for labelled sequences."""
        per_unit = {"evaluate": self.length, "sample": self.batch * self.length}
        return per_unit.get(self.kind, self.batch * self.unroll)

    @property
    def outputs(self) -> int:
        """Outputs of the last layer: one per symbol, or one for labelled sequences: the logit of label 1."""
        return 1 if self.labelled else self.vocabulary

    @property
    def inputs(self) -> tuple[int, ...]:
        """Input size of each layer; V if the input is one-hot."""
        return (self.embedding or self.vocabulary, *self.hidden[:-1])

    @property
    def objective_scale(self) -> float:
        """Ratio of the objective to the mean nats."""
        return {"mean": 1.0, "sum_over_time": float(self.unroll)}[self.weighting]


def draw_parameters(workload: Workload) -> dict[str, np.ndarray]:
    """Draws all parameters from U(-0.1, 0.1); the keys are this project's names, with dots between parts.

    embedding [V, E] unless one-hot; layer_i.w_x [D, G*H], w_h [H, G*H], b [G*H], and b_h [H] for a gru; gates in the
    order i, f, g, o (lstm) or r, z, g (gru); output_kernel [H, V], output_bias [V]; V is workload.outputs.
    """
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.uniform(-0.1, 0.1, shape).astype(np.float32)

    parameters = {"embedding": draw(workload.vocabulary, workload.embedding)} if workload.embedding else {}
    for index, (inputs, units) in enumerate(zip(workload.inputs, workload.hidden, strict=True)):
        width = GATES[workload.cell] * units
        layer = {"w_x": draw(inputs, width), "w_h": draw(units, width), "b": draw(width)}
        if workload.cell == "gru":
            layer["b_h"] = draw(units)
        parameters |= {f"layer_{index}.{name}": value for name, value in layer.items()}
    parameters["output_kernel"] = draw(workload.hidden[-1], workload.outputs)
    parameters["output_bias"] = draw(workload.outputs)
    return parameters


def layers(parameters: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The parameters of each layer: w_x, w_h, b, ..."""
    found = []
    while f"layer_{len(found)}.w_x" in parameters:
        prefix = f"layer_{len(found)}."
        found.append({k.removeprefix(prefix): v for k, v in parameters.items() if k.startswith(prefix)})
    return found


def gates(array: np.ndarray, cell: str) -> list[np.ndarray]:
    """Splits an array [..., G*H] into G arrays [..., H], in this project's gate order."""
    return np.split(array, GATES[cell], axis=-1)


def draw_text(workload: Workload) -> np.ndarray:
    """Draws uniform random token ids [N] of the smallest integer type. N: `batch` rows of WINDOWS windows plus one
    token (train, sample), or length + 1 (evaluate)."""
    number = workload.batch * (WINDOWS * workload.unroll + 1)
    if workload.kind == "evaluate":
        number = workload.length + 1
    rng = np.random.default_rng(1)
    return rng.integers(0, workload.vocabulary, number).astype(np.min_scalar_type(workload.vocabulary - 1))


def windows(workload: Workload, text: np.ndarray) -> np.ndarray:
    """Cuts a text as lm/data/batches.py does: int32 [windows, T + 1, B]. In evaluation, B is 1, and the last window is
    padded with token 0; the padding is not scored."""
    batch = 1 if workload.kind == "evaluate" else workload.batch
    rows = text.reshape(batch, -1).astype(np.int32)
    count = -(-(rows.shape[1] - 1) // workload.unroll)
    rows = np.pad(rows, [(0, 0), (0, count * workload.unroll + 1 - rows.shape[1])])
    starts = np.arange(count)[:, None] * workload.unroll
    return np.ascontiguousarray(rows.T[starts + np.arange(workload.unroll + 1)])


def mean_nats(parts: list, workload: Workload) -> float:
    """Mean of the nats [T, 1] of an evaluation's windows, without the last window's padding."""
    nats = np.concatenate([np.asarray(part, np.float64).reshape(-1) for part in parts])
    return float(nats[: workload.length].mean())


class Program(NamedTuple):
    """One implementation of a workload, ready to run.

    run: runs n units of work, waits for them, and returns the mean nats of the last step (train) or of the text
        (evaluate); NaN for sample, which scores nothing
    first_nats: mean nats of the first window [T, B] from zero state under the initial parameters, if `run` scores
        nothing
    batches: step (from 0) -> indices of the labelled sequences that it reads
    """

    run: Callable[[int], float]
    first_nats: Callable[[], float] | None = None
    batches: Callable[[int], np.ndarray] | None = None


# --- The table ------------------------------------------------------------------------------------------------------

_PTB = Workload("ptb_train", "train", "lstm", 200, (256, 128), 10_000, 60, 20, weighting="sum_over_time")
_TEXT8 = Workload("text8_train", "train", "lstm", 0, (64,), 27, 64, 10, learning_rate=10.0, clip=1.25, threads=1)
_SMALL = Workload("zaremba_small_train", "train", "lstm", 200, (200, 200), 10_000, 20, 20, weighting="sum_over_time")
_MEDIUM = _SMALL._replace(name="zaremba_medium_train", embedding=650, hidden=(650, 650), unroll=35, keep_prob=0.5)

# Evaluation scores 82,429 targets, as many as PTB's test text has.
_CORE = (
    _TEXT8,
    _PTB,
    _SMALL,
    _MEDIUM,
    Workload("char1024_train", "train", "lstm", 0, (1024,), 65, 50, 50),
    _PTB._replace(name="gru_ptb_train", cell="gru"),
    _PTB._replace(name="elman_ptb_train", cell="elman"),
    # Peers use windows of the training length in ptb_evaluate, of this project's length in ptb_evaluate_long.
    _PTB._replace(name="ptb_evaluate", kind="evaluate", batch=1, length=82_429),
    _PTB._replace(name="ptb_evaluate_long", kind="evaluate", batch=1, length=82_429, unroll=512),
    _TEXT8._replace(name="text8_sample", kind="sample", length=1000, threads=0),
)
CORE = tuple(workload.name for workload in _CORE)

# The LSTM of configs/imdb/article.py, with as many sequences as IMDB has.
_IMDB = Workload("imdb_train", "classify", "lstm", 32, (100,), 5000, 64, 218, learning_rate=1e-3)
_IMDB = _IMDB._replace(length=500, buckets=8, sequences=25_000)
_LABELLED = (_IMDB, _IMDB._replace(name="imdb_padding", kind="padding"))
LABELLED_WORKLOADS = tuple(workload.name for workload in _LABELLED)

_COST = Workload("cost", "train", "lstm", 128, (256,), 1000, 32, 20)


def _sweep(axis: str, values: tuple[int, ...], changes) -> dict[str, tuple[Workload, ...]]:
    return {f"cost_{axis}": tuple(_COST._replace(name=f"cost_{axis}_{v}", **changes(v)) for v in values)}


# Name -> the workloads of one plot, which vary along one axis.
SWEEPS = {
    **_sweep("unroll", (10, 32, 100, 320, 1000), lambda v: {"unroll": v}),
    **_sweep("hidden", (64, 128, 256, 512, 1024), lambda v: {"hidden": (v,)}),
    **_sweep("vocabulary", (27, 200, 1000, 10_000, 50_000), lambda v: {"vocabulary": v}),
    **_sweep("batch", (1, 4, 16, 64, 256), lambda v: {"batch": v}),
}

# Name in config.workloads -> the workloads to measure.
WORKLOADS = {workload.name: (workload,) for workload in (*_CORE, *_LABELLED)} | SWEEPS
