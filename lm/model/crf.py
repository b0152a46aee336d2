"""A linear-chain conditional random field (CRF): each tag of a sequence depends on its neighbours.

Sources: Lafferty, McCallum and Pereira (2001). "Conditional Random Fields: Probabilistic Models for Segmenting and
Labeling Sequence Data"; on top of a bidirectional LSTM: Lample et al. (2016). "Neural Architectures for Named Entity
Recognition".

    score(y)  = start[y_0] + sum_t scores[t, y_t] + sum_t>0 transitions[y_t-1, y_t] + end[y_last]
    ln p(y)   = score(y) - ln Z, with Z the sum of exp(score(y')) over all tag sequences y'

All functions use one backward pass over time, which needs no special case for padding at the end:

    after[t, y]            = ln of the sum over all later tags of exp(score after token t), if y_t = y
    p(y_t | y_t-1)         = softmax over y_t of transitions[y_t-1] + scores[t] + after[t]; for y_0, start + ...
    -ln p(y)               = sum_t -ln p(y_t | y_t-1): each token gets a part of the sequence's nats

T: steps, B: sequences of lengths [B], C: tags. The network computes the scores. Results at padding are meaningless.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Integer


class Chain(NamedTuple):
    """Scores that do not depend on the tokens.

    transitions: of a tag (column) that follows another (row); start, end: of the first and the last tag
    """

    transitions: Float[Array, "C C"]
    start: Float[Array, " C"]
    end: Float[Array, " C"]


def _ends(scores: Float[Array, "T B C"], lengths: Int[Array, " B"]) -> Bool[Array, "T B"]:
    """True at the last token of each sequence, and after it."""
    return jnp.arange(scores.shape[0])[:, None] >= lengths[None] - 1


def remaining(chain: Chain, scores: Float[Array, "T B C"], lengths: Int[Array, " B"]) -> Float[Array, "T B C"]:
    """scores + after: ln of the sum over all later tags of exp(score from token t on), for each tag of token t."""

    def step(later, inputs):
        here, ends = inputs
        after = jax.nn.logsumexp(chain.transitions[None] + later[:, None], axis=-1)
        total = here + jnp.where(ends[:, None], chain.end[None], after)
        return total, total

    return jax.lax.scan(step, jnp.zeros_like(scores[0]), (scores, _ends(scores, lengths)), reverse=True)[1]


def tag_nats(
    chain: Chain, scores: Float[Array, "T B C"], lengths: Int[Array, " B"], tags: Integer[Array, "T B"]
) -> Float[Array, "T B"]:
    """-ln p(y_t | y_t-1) of each tag. Their sum over a sequence is -ln p(y)."""
    before = jnp.concatenate([jnp.broadcast_to(chain.start, scores[:1].shape), chain.transitions[tags[:-1]]])
    log_probs = jax.nn.log_softmax(before + remaining(chain, scores, lengths))
    return -jnp.take_along_axis(log_probs, tags[..., None].astype(jnp.int32), axis=-1)[..., 0]


def log_marginals(chain: Chain, scores: Float[Array, "T B C"], lengths: Int[Array, " B"]) -> Float[Array, "T B C"]:
    """ln p(y_t) of each tag at each token, summed over the tags of all other tokens."""
    totals = remaining(chain, scores, lengths)

    def step(previous, total):
        conditional = jax.nn.log_softmax(chain.transitions[None] + total[:, None])
        here = jax.nn.logsumexp(previous[..., None] + conditional, axis=1)
        return here, here

    first = jax.nn.log_softmax(chain.start[None] + totals[0])
    return jnp.concatenate([first[None], jax.lax.scan(step, first, totals[1:])[1]])


def best_tags(chain: Chain, scores: Float[Array, "T B C"], lengths: Int[Array, " B"]) -> Int[Array, "T B"]:
    """The most probable sequence of tags (Viterbi 1967)."""

    def backward(later, inputs):
        here, ends = inputs
        candidates = chain.transitions[None] + later[:, None]
        total = here + jnp.where(ends[:, None], chain.end[None], candidates.max(axis=-1))
        return total, jnp.argmax(candidates, axis=-1)

    def forward(tag, following):
        chosen = jnp.take_along_axis(following, tag[:, None], axis=1)[:, 0]
        return chosen, chosen

    start = (jnp.zeros_like(scores[0]), (scores, _ends(scores, lengths)))
    total, following = jax.lax.scan(backward, *start, reverse=True)
    first = jnp.argmax(chain.start[None] + total, axis=-1)
    return jnp.concatenate([first[None], jax.lax.scan(forward, first, following[:-1])[1]])
