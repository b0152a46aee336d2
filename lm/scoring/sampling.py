"""Generation: a batch of texts in one jitted scan, one token per step.

Generation applies no dropout and starts from the model's initial state. A text begins with a prompt, at the
start of a line, or with tokens from a random distribution (Vanhoucke 2016, assignment 6).
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer
from ml_collections import ConfigDict

from lm.data.text import END_OF_SENTENCE, Vocabulary
from lm.errors import UserError
from lm.machine.memory import reject_above_free
from lm.model.language_model import LanguageModel, read_tokens

STRATEGIES = ("temperature", "greedy", "first_exceeding")
STARTS = ("line", "random")
# Level -> symbols after which a text may start, in order of preference.
LINE_ENDS = {"char": ("\n", " "), "word": (END_OF_SENTENCE,), "byte": ("\n",), "bpe": ("\n",)}

# Largest vocabulary for which `cumulative` is faster with one [V, V] matrix than in blocks of sqrt(V) symbols.
MOST_IN_ONE_BLOCK = 128

Tokens = Integer[np.ndarray, " _N"]
Scalar = Float[Array, ""] | float
Logits = Float[Array, "B V"]
Ids = Int[Array, " B"]


class SamplingRule(NamedTuple):
    """How a token is chosen from logits. Static under jit; temperature and top_p are passed separately.

    strategy:
        temperature      draws from softmax(logits / temperature)
        greedy           takes the most likely symbol
        first_exceeding  takes the first symbol in the vocabulary whose probability exceeds one uniform draw, else
                         symbol 0. This does not sample from the distribution (Trask 2019, ch. 14)
    top_k: keeps only the k most likely symbols, and of equally likely symbols the first ones; 0 keeps all
    nucleus: keeps only the smallest set of symbols with probability >= top_p (Holtzman et al. 2020)
    """

    strategy: str
    top_k: int
    nucleus: bool


def restrict(rule: SamplingRule, logits: Logits, top_p: Scalar) -> Logits:
    """Sets the logits of excluded symbols to -inf. The logits are already divided by the temperature."""
    if rule.top_k:
        rows, likely = jnp.arange(logits.shape[0])[:, None], jax.lax.top_k(logits, rule.top_k)[1]
        kept = jnp.zeros(logits.shape, bool).at[rows, likely].set(True)
        logits = jnp.where(kept, logits, -jnp.inf)
    if rule.nucleus:
        descending = -jnp.sort(-logits, axis=-1)
        probability = jax.nn.softmax(descending, axis=-1)
        mass_before = jnp.cumsum(probability, axis=-1) - probability
        least = jnp.min(jnp.where(mass_before < top_p, descending, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return logits


def next_token(
    rule: SamplingRule, uniform: Float[Array, " B"], logits: Logits, temperature: Scalar, top_p: Scalar
) -> Ids:
    """Chooses one token id per row. uniform: one draw from [0, 1) per row."""
    if rule.strategy == "greedy":
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    logits = restrict(rule, logits / temperature, top_p)
    if rule.strategy == "first_exceeding":
        return jnp.argmax(jax.nn.softmax(logits) > uniform[:, None], axis=-1).astype(jnp.int32)
    # Compares one uniform number per row with the cumulative distribution: V Gumbel draws would cost more time.
    reached = cumulative(jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True)))  # unnormalised
    passed = jnp.sum(reached <= uniform[:, None] * reached[:, -1:], axis=-1)
    # A draw that is rounded up to the total passes every symbol; then the last one that adds to the total is taken.
    return jnp.minimum(passed, jnp.argmax(reached >= reached[:, -1:], axis=-1)).astype(jnp.int32)


def cumulative(p: Float[Array, "B V"]) -> Float[Array, "B V"]:
    """Cumulative sums over symbols, as products with triangular matrices; with many symbols, in blocks."""
    symbols, exactly = p.shape[-1], jax.lax.Precision.HIGHEST
    if symbols <= MOST_IN_ONE_BLOCK:
        return jnp.matmul(p, jnp.triu(jnp.ones((symbols, symbols), p.dtype)), precision=exactly)
    size = math.isqrt(symbols - 1) + 1
    blocks = -(-symbols // size)
    p = jnp.pad(p, [(0, 0), (0, blocks * size - symbols)]).reshape(-1, blocks, size)
    within = jnp.matmul(p, jnp.triu(jnp.ones((size, size), p.dtype)), precision=exactly)
    before = jnp.matmul(within[..., -1], jnp.triu(jnp.ones((blocks, blocks), p.dtype), 1), precision=exactly)
    return (within + before[..., None]).reshape(-1, blocks * size)[:, :symbols]


class Settings(NamedTuple):
    """The traced part of config.sample. banned [V]: 0, or -inf for a symbol that is never drawn"""

    temperature: Scalar
    top_p: Scalar
    banned: Float[Array, " V"] | Float[np.ndarray, " V"]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _generate(model: LanguageModel, rule: SamplingRule, length: int, parameters, prompts, key, settings: Settings):
    """Continues prompts [R, B], with R >= context: returns the next tokens [length, B]."""
    carry, logits = read_tokens(model, parameters, prompts, model.initial_carry(prompts.shape[1]))

    def step(state, uniform):
        recent, carry, logits = state  # the last `context` tokens [context, B]; logits of the next one [B, V]
        token = next_token(rule, uniform, logits + settings.banned[None], settings.temperature, settings.top_p)
        recent = jnp.concatenate([recent[1:], token[None]])
        carry, logits = read_tokens(model, parameters, recent, carry)
        return (recent, carry, logits[-1]), token

    start = (prompts[-model.context :].astype(jnp.int32), carry, logits[-1])
    return jax.lax.scan(step, start, jax.random.uniform(key, (length, prompts.shape[1])))[1]


def generate(
    model: LanguageModel, parameters: dict, vocabulary: Vocabulary, sample: ConfigDict, key: Array | None = None
) -> list[str]:
    """Generates `sample.number` texts: the start or prompt, then `sample.length` tokens. sample: config.sample.

    If `sample.stop` is set, a text ends early with the first stop after the start or prompt (<eos> in Salvatore 2017).
    key: a random key; None makes one from `sample.seed`
    Raises UserError for settings out of range and for a prompt that cannot be encoded or is shorter than the context.
    """
    rule = check_sample(sample, vocabulary, model.context)
    check_sample_memory(sample, vocabulary.size)
    key = jax.random.key(sample.seed) if key is None else key
    start_key, key = jax.random.split(key)
    start, hidden = start_tokens(start_key, sample, vocabulary, model.context)
    settings = Settings(sample.temperature, sample.top_p, banned_symbols(sample, vocabulary))
    rest = _generate(model, rule, sample.length, parameters, start, key, settings)
    tokens = np.concatenate([np.asarray(start)[hidden:], np.asarray(rest)])
    shown = len(start) - hidden
    return [vocabulary.decode(cut_at_stop(column, sample.stop, shown, vocabulary)) for column in tokens.T]


def check_sample_memory(sample: ConfigDict, vocabulary_size: int) -> None:
    """Raises UserError if sampling needs more than the free memory."""
    texts = 4 * sample.number * (sample.length + vocabulary_size)
    reject_above_free(texts, "at least", "sampling", "config.sample.number or config.sample.length")


# --- Starts ---------------------------------------------------------------------------------------------------------


def start_tokens(
    key: Array, sample: ConfigDict, vocabulary: Vocabulary, context: int
) -> tuple[Int[Array, "R {sample.number}"], int]:
    """Returns (the first tokens of all texts, number of these tokens that are not shown).

    Returns sample.prompt if it is set. Otherwise sample.start="line" returns the symbol that ends a line, or else the
    symbol that ends a word. sample.start="random" draws random tokens, as does "line" if the vocabulary has neither
    symbol or the model reads bigrams.
    """
    if sample.prompt:
        ids = encode_prompt(vocabulary, sample.prompt, context)
        return jnp.tile(jnp.asarray(ids, jnp.int32)[:, None], (1, sample.number)), 0
    ends = [vocabulary.symbols.index(end) for end in LINE_ENDS[vocabulary.level] if end in vocabulary.symbols]
    if sample.start == "line" and ends and context == 1:
        return jnp.full((1, sample.number), ends[0], jnp.int32), 1
    # Each token has its own distribution: normalised uniform weights (Vanhoucke 2016, assignment 6).
    weights_key, draw_key = jax.random.split(key)
    weights = jax.random.uniform(weights_key, (context, sample.number, vocabulary.size))
    scores = jnp.log(weights) + banned_symbols(sample, vocabulary)[None, None]
    return jax.random.categorical(draw_key, scores).astype(jnp.int32), 0


def encode_prompt(vocabulary: Vocabulary, prompt: str, context: int) -> Tokens:
    """Encodes a prompt. Raises UserError for symbols outside the vocabulary; `vocabulary.unknown` is not used."""
    try:
        ids = dataclasses.replace(vocabulary, unknown=None).encode(prompt)
    except UserError as error:
        raise UserError(f"config.sample.prompt: {error}") from error
    if len(ids) < context:
        raise UserError(f"config.sample.prompt must have at least {context} tokens for this model, not {len(ids)}")
    return ids


# --- Settings -------------------------------------------------------------------------------------------------------


def check_sample(sample: ConfigDict, vocabulary: Vocabulary, context: int) -> SamplingRule:
    """Checks config.sample for a model that reads `context` tokens per prediction. Returns its SamplingRule.

    Raises UserError that names the invalid key.
    """
    if sample.prompt:
        encode_prompt(vocabulary, sample.prompt, context)
    for key, symbol in (("stop", sample.stop), *(("suppress", symbol) for symbol in sample.suppress)):
        if symbol and symbol not in vocabulary.symbols:
            raise UserError(f"config.sample.{key}={symbol!r} is not a symbol of the corpus")
    if not np.isfinite(banned_symbols(sample, vocabulary)).any():
        raise UserError("config.sample.suppress leaves no symbol to draw")
    if sample.strategy == "first_exceeding" and sample.suppress:
        raise UserError("config.sample.suppress has no effect on strategy=first_exceeding: choose another strategy")
    if sample.top_k > vocabulary.size:
        symbols = f"{vocabulary.size}, the number of symbols of the corpus"
        raise UserError(f"config.sample.top_k must be at most {symbols}, not {sample.top_k}")
    return SamplingRule(sample.strategy, sample.top_k, sample.top_p < 1)


def banned_symbols(sample: ConfigDict, vocabulary: Vocabulary) -> Float[np.ndarray, " V"]:
    """-inf for the symbols of sample.suppress, and for the unknown character, which no text contains."""
    banned = {*sample.suppress, *({vocabulary.unknown} if vocabulary.level == "char" else ())}
    return np.array([-np.inf if symbol in banned else 0.0 for symbol in vocabulary.symbols], np.float32)


def cut_at_stop(ids: Tokens, stop: str, start: int, vocabulary: Vocabulary) -> Tokens:
    """Cuts ids after the first `stop` at or after position `start`. An empty `stop` keeps all."""
    if not stop:
        return ids
    found = np.flatnonzero(ids[start:] == vocabulary.symbols.index(stop))
    return ids[: start + found[0] + 1] if len(found) else ids
