"""The CRF against all tag sequences, written out in NumPy: three tags, sequences of one to five tokens, padded."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.model import crf
from lm.model.crf import Chain

TAGS, STEPS = 3, 7
LENGTHS = np.array([3, 1, 5, 2, 4])


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


def arrays(seed=0):
    """(chain, scores [T, B, C], tags [T, B])"""
    rng = np.random.default_rng(seed)
    chain = Chain(*(2 * rng.normal(size=shape) for shape in ((TAGS, TAGS), (TAGS,), (TAGS,))))
    shape = (STEPS, len(LENGTHS))
    return chain, 2 * rng.normal(size=(*shape, TAGS)), rng.integers(0, TAGS, shape)


def score(chain, scores, tags):
    """Of one sequence of tags; scores [n, C]."""
    inner = sum(scores[t, tag] for t, tag in enumerate(tags))
    between = sum(chain.transitions[pair] for pair in itertools.pairwise(tags))
    return chain.start[tags[0]] + inner + between + chain.end[tags[-1]]


def enumerated(chain, scores):
    """(all tag sequences of one text, their probabilities, ln Z)"""
    sequences = list(itertools.product(range(TAGS), repeat=len(scores)))
    values = np.array([score(chain, scores, tags) for tags in sequences])
    total = np.log(np.exp(values).sum())
    return sequences, np.exp(values - total), total


def on_device(*arguments):
    return jax.tree.map(jnp.asarray, arguments)


def test_partition_nats_and_marginals_are_those_of_the_enumeration(double):
    chain, scores, tags = arrays()
    inputs = on_device(chain, scores, LENGTHS)
    partition = jax.nn.logsumexp(inputs[0].start[None] + crf.remaining(*inputs)[0], axis=-1)
    marginals = np.exp(crf.log_marginals(*inputs))
    nats = np.asarray(crf.tag_nats(*inputs, jnp.asarray(tags)))
    for b, n in enumerate(LENGTHS):
        sequences, probabilities, total = enumerated(chain, scores[:n, b])
        assert partition[b] == pytest.approx(total, abs=1e-12)
        chosen = tuple(tags[:n, b].tolist())
        assert nats[:n, b].sum() == pytest.approx(-np.log(probabilities[sequences.index(chosen)]), abs=1e-12)
        for t in range(n):
            for tag in range(TAGS):
                expected = sum(p for p, y in zip(probabilities, sequences, strict=True) if y[t] == tag)
                assert marginals[t, b, tag] == pytest.approx(expected, abs=1e-12)
            # The nats of a token are those given the tags before it.
            prefix = sum(p for p, y in zip(probabilities, sequences, strict=True) if y[:t] == chosen[:t])
            longer = sum(p for p, y in zip(probabilities, sequences, strict=True) if y[: t + 1] == chosen[: t + 1])
            assert nats[t, b] == pytest.approx(-np.log(longer / prefix), abs=1e-12)


def test_the_gradient_is_expected_counts_minus_counts(double):
    """d -ln p(y) / d score = p(what is scored) - whether y has it, over all sequences."""
    chain, scores, tags = arrays(1)
    expected = jax.tree.map(np.zeros_like, (chain, scores))
    for b, n in enumerate(LENGTHS):
        sequences, probabilities, _ = enumerated(chain, scores[:n, b])
        chosen = tuple(tags[:n, b].tolist())
        for p, y in [*zip(probabilities, sequences, strict=True), (-1.0, chosen)]:
            parts, of_scores = expected
            parts.start[y[0]] += p
            parts.end[y[-1]] += p
            for pair in itertools.pairwise(y):
                parts.transitions[pair] += p
            for t, tag in enumerate(y):
                of_scores[t, b, tag] += p
    inside = jnp.arange(STEPS)[:, None] < LENGTHS[None]

    def objective(chain, scores):
        return jnp.sum(jnp.where(inside, crf.tag_nats(chain, scores, jnp.asarray(LENGTHS), jnp.asarray(tags)), 0.0))

    gradient = jax.grad(objective, argnums=(0, 1))(*on_device(chain, scores))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), gradient, expected)


@pytest.mark.parametrize("seed", range(5))
def test_the_best_tags_are_those_of_the_enumeration(double, seed):
    chain, scores, _ = arrays(seed)
    found = np.asarray(crf.best_tags(*on_device(chain, scores, LENGTHS)))
    greedy = scores.argmax(axis=-1)
    for b, n in enumerate(LENGTHS):
        sequences, probabilities, _ = enumerated(chain, scores[:n, b])
        assert tuple(found[:n, b].tolist()) == sequences[int(np.argmax(probabilities))]
    assert (found != greedy)[np.arange(STEPS)[:, None] < LENGTHS[None]].any(), "the chain decides something"


def test_padding_changes_nothing(double):
    chain, scores, tags = arrays(2)
    whole = on_device(chain, scores, LENGTHS)
    for b, n in enumerate(LENGTHS):
        alone = on_device(chain, scores[:n, b : b + 1], LENGTHS[b : b + 1])
        for function, extra in ((crf.log_marginals, ()), (crf.best_tags, ()), (crf.tag_nats, (jnp.asarray(tags),))):
            together = function(*whole, *extra)
            single = function(*alone, *(x[:n, b : b + 1] for x in extra))
            np.testing.assert_allclose(together[:n, b], single[:, 0], atol=1e-12)


def test_long_sequences_and_empty_rows_stay_finite_in_32_bits():
    rng = np.random.default_rng(0)
    chain = Chain(*(jnp.asarray(5 * rng.normal(size=shape), jnp.float32) for shape in ((9, 9), (9,), (9,))))
    scores, lengths = jnp.asarray(20 * rng.normal(size=(200, 2, 9)), jnp.float32), jnp.array([200, 0])
    tags = crf.best_tags(chain, scores, lengths)

    def objective(chain, scores):
        nats = crf.tag_nats(chain, scores, lengths, tags)
        return jnp.sum(nats[:, 0]), nats

    (_, nats), gradient = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)(chain, scores)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((nats, gradient)))
    assert (nats[:, 0] > -1e-4).all()
    assert not np.asarray(gradient[1])[:, 1].any()
