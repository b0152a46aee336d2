"""Scoring protocols: named ways to score a text, each of which defines its targets.

Compare a reported perplexity only under the protocol of its source. Some protocols skip targets or reset the state;
`exact` scores every target once with carried state. A protocol cuts the text into windows, which are read in order. The
nats of all targets are summed, and divided once, at the end.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer
from ml_collections import ConfigDict

from lm.data.batches import make_streams
from lm.errors import UserError
from lm.model.language_model import LanguageModel
from lm.scoring.adaptive import Adaptation, adaptive_nats
from lm.scoring.score import Score

Tokens = Integer[np.ndarray, " _N"]
Nats = Float[np.ndarray, " _targets"]

# Tokens per window of the exact protocol: long enough to make the products outside the time loop large.
EXACT_UNROLL = 512


class Windows(NamedTuple):
    """K windows of B rows, read in order, with carried state or each from the initial state.

    Row b of window k reads `size` tokens, starting at position k * hop + b * (N // B), modulo the N tokens of the text.
    """

    count: int  # K
    size: int  # W, inputs and targets
    rows: int  # B
    hop: int
    targets: int  # number of scored targets: the first ones in the order [K, W - context, B]; others are padding
    carried: bool = True


def _notebook(context: int, tokens: int, settings: ConfigDict, stride: int = 1) -> Windows:
    """Vanhoucke 2016, assignment 6: batch 1, evaluation.predictions predictions, one at a time.

    Prediction k reads `context` characters from k * stride on and predicts the next one; the text wraps around. With
    the bigram notebook's stride of 2, every other bigram is scored, and 1000 predictions pass 1000 characters twice.
    """
    return Windows(settings.predictions, context + 1, 1, stride, settings.predictions)


def _batched(context: int, tokens: int, settings: ConfigDict) -> Windows:
    """Laid out as in training: evaluation.batch_size contiguous rows in windows of evaluation.unroll + 1 tokens.

    Used by TensorFlow's ptb_word_lm, Salvatore 2017 and Cognitive Class 2018. Each of B rows starts from the initial
    state. Leaves out what follows each row's last full window, in all less than B * W tokens. Bigrams also skip one
    target per window and row.
    """
    rows, unroll = settings.batch_size, settings.unroll
    if unroll < context:
        raise UserError(f"config.evaluation.unroll must be at least {context} for this model, not {unroll}")
    if tokens // rows < unroll + 1:
        raise UserError(
            f"a text of {tokens} tokens is too short for protocols batched and windows, which need config.evaluation."
            f"batch_size={rows} rows of config.evaluation.unroll={unroll} + 1 tokens"
        )
    count = make_streams("rows", tokens, rows, unroll, context).windows_per_epoch
    return Windows(count, unroll + 1, rows, unroll, count * (unroll + 1 - context) * rows)


def _windows(context: int, tokens: int, settings: ConfigDict) -> Windows:
    """As batched, with every window read from the initial state (Krueger et al. 2017, on characters)."""
    return _batched(context, tokens, settings)._replace(carried=False)


def _exact(context: int, tokens: int, settings: ConfigDict | None = None, most: int = EXACT_UNROLL) -> Windows:
    """Every target once, as one stream of batch 1. The first `context` tokens are not targets.

    most: targets per window
    """
    if tokens <= context:
        raise UserError(f"a text of {tokens} tokens is too short to score: {context + 1} are needed")
    targets = tokens - context
    hop = min(most, targets)
    return Windows(count=-(-targets // hop), size=hop + context, rows=1, hop=hop, targets=targets)


def _tempered(context: int, tokens: int, settings: ConfigDict) -> Windows:
    """As exact, with the logits divided by evaluation.temperature (Melis et al. 2018)."""
    return _exact(context, tokens)


def _segments(context: int, tokens: int, settings: ConfigDict) -> Windows:
    """As exact, with a step of gradient descent after each evaluation.dynamic_segment tokens (Krause et al. 2018)."""
    return _exact(context, tokens, most=settings.dynamic_segment)


def _cached(context: int, tokens: int, settings: ConfigDict) -> Windows:
    """As exact, mixed with a cache of the last evaluation.cache_window tokens (Grave et al. 2017)."""
    return _exact(context, tokens)


def _cached_segments(context: int, tokens: int, settings: ConfigDict) -> Windows:
    """As dynamic, with a cache on top."""
    return _segments(context, tokens, settings)


class Protocol(NamedTuple):
    """A way to score a text.

    windows: (context, N, settings) -> Windows. Raises UserError if the text is too short.
    extent: what sets the number of windows: "text" (its length) or "predictions" (settings.predictions)
    most_nats: upper bound on the nats of one target
    reads: keys of config.evaluation that affect the score
    adapts: how lm/scoring/adaptive.py scores the text, or "" if it does not
    """

    windows: Callable[..., Windows]
    extent: str
    most_nats: float = math.inf
    reads: tuple[str, ...] = ()
    adapts: str = ""


MOST_NATS = -math.log(1e-10)  # Vanhoucke 2016 raises probabilities below 1e-10 to 1e-10
_CACHE, _DYNAMIC = ("cache_window", "cache_theta", "cache_lambda"), ("dynamic_segment", "dynamic_rate", "dynamic_decay")
PROTOCOLS = {
    "notebook": Protocol(_notebook, "predictions", MOST_NATS, ("predictions",)),
    "notebook_stride2": Protocol(functools.partial(_notebook, stride=2), "predictions", MOST_NATS, ("predictions",)),
    "batched": Protocol(_batched, "text", reads=("batch_size", "unroll")),
    "windows": Protocol(_windows, "text", reads=("batch_size", "unroll")),
    "exact": Protocol(_exact, "text"),
    "temperature": Protocol(_tempered, "text", reads=("temperature",), adapts="temperature"),
    "cache": Protocol(_cached, "text", reads=_CACHE, adapts="cache"),
    "dynamic": Protocol(_segments, "text", reads=_DYNAMIC, adapts="dynamic"),
    "dynamic_cache": Protocol(_cached_segments, "text", reads=(*_DYNAMIC, *_CACHE), adapts="both"),
}


@functools.partial(jax.jit, static_argnums=(0, 3))
def _stream_nats(
    model: LanguageModel, parameters: dict, windows: Integer[Array, "K W B"], carried: bool
) -> Float[Array, "K W-{model.context} B"]:
    """Nats of the targets of consecutive windows. carried: whether a window starts from the state after the last"""
    initial = model.initial_carry(windows.shape[2])

    def step(carry, tokens):
        return model.apply({"params": parameters}, tokens, carry if carried else initial, method="nats")

    return jax.lax.scan(step, initial, windows)[1]


def _program(protocol: str, carried: bool, settings: ConfigDict | None) -> tuple[Any, tuple]:
    """Returns the jitted function (model, parameters, windows, ...) -> nats of a protocol, and its other arguments."""
    if settings is None or not PROTOCOLS[protocol].adapts:
        return _stream_nats, (carried,)
    adaptation = Adaptation(
        temperature=settings.temperature,
        theta=settings.cache_theta,
        share=settings.cache_lambda,
        rate=settings.dynamic_rate,
        decay=settings.dynamic_decay,
    )
    return adaptive_nats, (PROTOCOLS[protocol].adapts, settings.cache_window, adaptation)


def exact_nats(model: LanguageModel, parameters: dict, tokens: Tokens) -> Nats:
    """Nats of every target under the exact protocol. Raises UserError for a text without a target."""
    return protocol_nats("exact", model, parameters, tokens, None)


def protocol_nats(
    protocol: str, model: LanguageModel, parameters: dict, tokens: Tokens, settings: ConfigDict | None
) -> Nats:
    """Nats of every target under a protocol of PROTOCOLS, in order. Raises UserError if the text is too short.

    settings: config.evaluation; None for the protocol exact, which reads none
    """
    windows = PROTOCOLS[protocol].windows(model.context, len(tokens), settings)
    program, more = _program(protocol, windows.carried, settings)
    firsts, rows = windows.hop * np.arange(windows.count), len(tokens) // windows.rows * np.arange(windows.rows)
    read = tokens.take(firsts[:, None, None] + np.arange(windows.size)[:, None] + rows, mode="wrap")  # [K, W, B]
    nats = np.asarray(program(model, parameters, jnp.asarray(read), *more)).reshape(-1)[: windows.targets]
    return np.minimum(nats, PROTOCOLS[protocol].most_nats)


def evaluate(protocol: str, model: LanguageModel, parameters: dict, tokens: Tokens, settings: ConfigDict) -> Score:
    """Sums `protocol_nats`, in float64 to keep rounding errors negligible."""
    nats = protocol_nats(protocol, model, parameters, tokens, settings)
    return Score(float(nats.sum(dtype=np.float64)), len(nats))


def window_shape(protocol: str, model: LanguageModel, tokens: int, settings: ConfigDict) -> tuple[int, int, int]:
    """(K, W, B) of the windows that a protocol cuts from a text of N tokens. Raises UserError for a text too short."""
    return PROTOCOLS[protocol].windows(model.context, tokens, settings)[:3]


def compile_stream(
    protocol: str, model: LanguageModel, parameters: dict, tokens: Tokens, settings: ConfigDict
) -> jax.stages.Compiled:
    """Compiles the program that scores a text under a protocol. parameters: arrays or ShapeDtypeStructs."""
    cut = PROTOCOLS[protocol].windows(model.context, len(tokens), settings)
    windows = jax.ShapeDtypeStruct(cut[:3], tokens.dtype)
    program, more = _program(protocol, cut.carried, settings)
    return program.lower(model, parameters, windows, *more).compile()


def check_evaluation(settings: ConfigDict, model: LanguageModel, texts: dict[str, Tokens]) -> None:
    """Checks before training that the loaded texts are long enough for config.evaluation.

    Raises UserError that names the text and any key that is too large for it.
    """
    scored = {(split, protocol) for split in settings.splits for protocol in settings.protocols}
    for split, protocol in sorted(scored | {("valid", settings.during)}):
        if split in texts:
            try:
                window_shape(protocol, model, len(texts[split]), settings)
            except UserError as error:
                raise UserError(f"{split} cannot be scored: {error}") from error
