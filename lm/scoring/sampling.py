"""Generation: a batch of texts in one jitted scan, one token per step.

Sampling reads no dropout and starts from the model's initial state. A text begins with a prompt, or with tokens
drawn from a random distribution, as assignment 6 does.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from lm.data.text import Vocabulary
from lm.errors import UserError, check_name
from lm.model.language_model import LanguageModel

Array = jax.Array

STRATEGIES = ("temperature", "greedy", "first_exceeding")


# Symbols up to which a product with V^2 ones is faster than two with sqrt(V)^2 and what they need around them.
MOST_IN_ONE_BLOCK = 128


class SamplingRule(NamedTuple):
    """How a token is chosen from logits; static under jit but for the two numbers passed beside it.

    strategy: temperature (draw from softmax(logits / temperature)), greedy (argmax), or first_exceeding: the first
        symbol, in the order of the vocabulary, whose probability exceeds one uniform draw, else the first of all.
        That is what Grokking Deep Learning ch. 14 does for sampling; it is no draw from the distribution
    top_k: only the k most likely symbols are drawn, of equal ones the first; 0 for all
    nucleus: whether draws are restricted to the smallest set of probability >= top_p (Holtzman et al. 2020)
    """

    strategy: str
    top_k: int
    nucleus: bool


def restrict(rule: SamplingRule, logits: Array, top_p: Array) -> Array:
    """Logits [B, V] (already divided by the temperature) with excluded symbols at -inf."""
    if rule.top_k:
        rows, likely = jnp.arange(logits.shape[0])[:, None], jax.lax.top_k(logits, rule.top_k)[1]
        kept = jnp.zeros(logits.shape, bool).at[rows, likely].set(True)
        logits = jnp.where(kept, logits, -jnp.inf)
    if rule.nucleus:
        descending = -jnp.sort(-logits, axis=-1)
        mass_before = jnp.cumsum(jax.nn.softmax(descending, axis=-1), axis=-1) - jax.nn.softmax(descending, axis=-1)
        least = jnp.min(jnp.where(mass_before < top_p, descending, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return logits


def next_token(rule: SamplingRule, uniform: Array, logits: Array, temperature: Array, top_p: Array) -> Array:
    """One token id per row of logits [B, V] -> [B]; uniform [B]: a draw from [0, 1) for each row."""
    if rule.strategy == "greedy":
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    logits = restrict(rule, logits / temperature, top_p)
    if rule.strategy == "first_exceeding":
        return jnp.argmax(jax.nn.softmax(logits) > uniform[:, None], axis=-1).astype(jnp.int32)
    # One uniform number a row, against the cumulative distribution: V Gumbel draws would cost more than the model.
    reached = cumulative(jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True)))  # up to a factor for each row
    passed = jnp.sum(reached <= uniform[:, None] * reached[:, -1:], axis=-1)
    # Where rounding lets the draw reach the total: the first symbol that does too, so never one of probability 0.
    return jnp.minimum(passed, jnp.argmax(reached >= reached[:, -1:], axis=-1)).astype(jnp.int32)


def cumulative(p: Array) -> Array:
    """Sums of p [B, V] up to and with each symbol, by a product; of many symbols within blocks and over the blocks."""
    symbols, exactly = p.shape[-1], jax.lax.Precision.HIGHEST
    if symbols <= MOST_IN_ONE_BLOCK:
        return jnp.matmul(p, jnp.triu(jnp.ones((symbols, symbols), p.dtype)), precision=exactly)
    size = math.isqrt(symbols - 1) + 1
    blocks = -(-symbols // size)
    p = jnp.pad(p, [(0, 0), (0, blocks * size - symbols)]).reshape(-1, blocks, size)
    within = jnp.matmul(p, jnp.triu(jnp.ones((size, size), p.dtype)), precision=exactly)
    before = jnp.matmul(within[..., -1], jnp.triu(jnp.ones((blocks, blocks), p.dtype), 1), precision=exactly)
    return (within + before[..., None]).reshape(-1, blocks * size)[:, :symbols]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _generate(model: LanguageModel, rule: SamplingRule, length: int, parameters, prompts, key, temperature, top_p):
    """prompts [P, B] (P >= context) -> tokens [length, B] that follow them."""
    variables = {"params": parameters}
    carry, logits = model.apply(variables, prompts, model.initial_carry(prompts.shape[1]))

    def step(state, uniform):
        recent, carry, logits = state  # the last `context` tokens [context, B]; logits of the next one [B, V]
        token = next_token(rule, uniform, logits, temperature, top_p)
        recent = jnp.concatenate([recent[1:], token[None]])
        carry, logits = model.apply(variables, recent, carry)
        return (recent, carry, logits[-1]), token

    start = (prompts[-model.context :].astype(jnp.int32), carry, logits[-1])
    return jax.lax.scan(step, start, jax.random.uniform(key, (length, prompts.shape[1])))[1]


def random_start(key: Array, context: int, number: int, symbols: int) -> Array:
    """Start tokens [context, B]: each drawn from a random distribution, uniform weights normalised (assignment 6)."""
    weights_key, draw_key = jax.random.split(key)
    weights = jax.random.uniform(weights_key, (context, number, symbols))
    return jax.random.categorical(draw_key, jnp.log(weights)).astype(jnp.int32)


def check_sample(sample: ml_collections.ConfigDict, vocabulary: Vocabulary, context: int) -> SamplingRule:
    """Checks `config.sample` for a model of `context` tokens to an input. Raises UserError naming the key at fault."""
    symbols = vocabulary.size
    if sample.prompt:
        encode_prompt(vocabulary, sample.prompt, context)
    if sample.stop and sample.stop not in vocabulary.symbols:
        raise UserError(f"config.sample.stop={sample.stop!r} is not a symbol of the corpus")
    check_name(sample.strategy, STRATEGIES, "config.sample.strategy")
    for key in ("number", "length"):
        if sample[key] < 1:
            raise UserError(f"config.sample.{key} must be at least 1, not {sample[key]}")
    if not 1e-4 <= sample.temperature <= 1e4:
        raise UserError(f"config.sample.temperature must be between 0.0001 and 10000, not {sample.temperature}; for "
                        "the most likely symbol use config.sample.strategy=greedy")  # fmt: skip
    if not 0 <= sample.top_k <= symbols:
        raise UserError(f"config.sample.top_k must be between 0 (all) and {symbols}, not {sample.top_k}")
    if not 0 < sample.top_p <= 1:
        raise UserError(f"config.sample.top_p must be in (0, 1], not {sample.top_p}")
    return SamplingRule(sample.strategy, sample.top_k, sample.top_p < 1)


def generate(
    model: LanguageModel,
    parameters: dict,
    vocabulary: Vocabulary,
    sample: ml_collections.ConfigDict,
    key: Array | None = None,
) -> list[str]:
    """`sample.number` texts of `sample.length` tokens, start or prompt included; sample is `config.sample`.

    A text ends early with the first symbol `sample.stop` after its start, where one is set (CS224d: <eos>).
    key: defaults to `sample.seed`. Raises UserError for settings out of range and for a prompt that the vocabulary
    cannot encode or that is shorter than the model's context.
    """
    rule = check_sample(sample, vocabulary, model.context)
    key = jax.random.key(sample.seed) if key is None else key
    start_key, key = jax.random.split(key)
    if sample.prompt:
        ids = encode_prompt(vocabulary, sample.prompt, model.context)
        start = jnp.tile(jnp.asarray(ids, jnp.int32)[:, None], (1, sample.number))
    else:
        start = random_start(start_key, model.context, sample.number, vocabulary.size)
    length = max(1, sample.length - start.shape[0])
    rest = _generate(model, rule, length, parameters, start, key, sample.temperature, sample.top_p)
    tokens = np.concatenate([np.asarray(start), np.asarray(rest)])[: max(sample.length, start.shape[0])]
    return [vocabulary.decode(cut_at_stop(column, sample.stop, len(start), vocabulary)) for column in tokens.T]


def cut_at_stop(ids: np.ndarray, stop: str, start: int, vocabulary: Vocabulary) -> np.ndarray:
    """Ids [N] up to and with the first `stop` at or after position `start`; all of them where stop is empty."""
    if not stop:
        return ids
    found = np.flatnonzero(ids[start:] == vocabulary.symbols.index(stop))
    return ids[: start + found[0] + 1] if len(found) else ids


def encode_prompt(vocabulary: Vocabulary, prompt: str, context: int) -> np.ndarray:
    """Token ids of a prompt. Unknown symbols are an error even where the vocabulary has an unknown symbol."""
    try:
        ids = Vocabulary(vocabulary.level, vocabulary.symbols).encode(prompt)
    except UserError as error:
        raise UserError(f"config.sample.prompt: {error}") from error
    if len(ids) < context:
        raise UserError(f"config.sample.prompt must have at least {context} tokens for this model, not {len(ids)}")
    return ids
