"""Generated texts: greedy against an argmax loop in NumPy, drawn symbols against the probabilities they come from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.data.text import Vocabulary
from lm.errors import UserError
from lm.scoring.sampling import SamplingRule, cumulative, generate, next_token, restrict
from tests.helpers import references, tiny

VOCABULARY = Vocabulary("char", tuple(tiny.SYMBOLS))
P = np.array([0.4, 0.3, 0.15, 0.1, 0.05])  # of each symbol, under a model without memory
NUMBER, LENGTH = 40, 50
CHI_SQUARE = {1: 15.1, 2: 18.4, 4: 23.5}  # exceeded by 1 in 10,000, by degrees of freedom


def settings(**changes):
    config = tiny.config(sample__number=NUMBER, sample__length=LENGTH)
    config.sample.update(changes)
    return config.sample


def draw(**changes):
    """Ids [number, length] from the model without memory, without the random start."""
    model, parameters = tiny.model()
    parameters = jax.tree.map(np.zeros_like, parameters) | {"output_bias": np.log(P).astype(np.float32)}
    texts = generate(model, parameters, VOCABULARY, settings(**changes))
    return np.array([[tiny.SYMBOLS.index(symbol) for symbol in text] for text in texts])[:, 1:]


def assert_drawn_from(ids, probabilities):
    """By a chi-square test. A symbol of probability 0 must not occur."""
    counts = np.bincount(ids.ravel(), minlength=tiny.V)
    possible = probabilities > 0
    assert (counts[~possible] == 0).all(), counts
    expected = probabilities[possible] / probabilities.sum() * ids.size
    statistic = np.sum((counts[possible] - expected) ** 2 / expected)
    assert statistic < CHI_SQUARE[possible.sum() - 1], (counts, expected)
    # in each half, not only on average
    assert ids.shape == (NUMBER, LENGTH)
    for half in (ids[:, : LENGTH // 2], ids[:, LENGTH // 2 :], ids[: NUMBER // 2], ids[NUMBER // 2 :]):
        np.testing.assert_allclose(np.bincount(half.ravel(), minlength=5) / half.size, probabilities, atol=0.06)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_probabilities_are_raised_to_the_inverse_temperature(temperature):
    expected = P ** (1 / temperature)
    assert_drawn_from(draw(temperature=temperature), expected / expected.sum())


def test_top_k_draws_the_k_most_likely_in_proportion():
    assert_drawn_from(draw(top_k=2), np.array([4 / 7, 3 / 7, 0, 0, 0]))


def test_top_k_draws_no_more_than_k_where_several_are_equally_likely():
    rule, logits = (
        SamplingRule("temperature", 2, False),
        jnp.log(jnp.array([[0.1, 0.3, 0.3, 0.3], [0.7, 0.1, 0.1, 0.1]])),
    )
    left = np.isfinite(restrict(rule, logits, jnp.ones(())))
    np.testing.assert_array_equal(left, [[False, True, True, False], [True, True, False, False]])


@pytest.mark.parametrize(("mass", "kept"), [(0.75, 3), (0.65, 2), (0.99, 5)])
def test_nucleus_draws_from_the_smallest_set_of_that_mass(mass, kept):
    expected = np.where(np.arange(5) < kept, P, 0)
    assert_drawn_from(draw(top_p=mass), expected / expected.sum())


def test_a_tiny_nucleus_is_greedy():
    assert (draw(top_p=0.01) == 0).all()


def test_symbols_and_texts_are_drawn_independently():
    """Neighbours in a text, and equal positions of two texts, agree as often as independent draws: sum of p^2."""
    ids, chance = draw(), np.sum(P**2)
    assert np.mean(ids[:, 1:] == ids[:, :-1]) == pytest.approx(chance, abs=0.05)
    assert np.mean(ids[1:] == ids[:-1]) == pytest.approx(chance, abs=0.05)


BIGRAM = {"model__input": "bigram", "model__embedding_size": 4}
# Settings, seed and factor of the parameters: the text varies, and no two symbols are almost equally likely.
CASES = {
    "one_hot": ({}, 181, 3),
    "embedding": ({"model__input": "embedding", "model__embedding_size": 4, "model__hidden": (6, 5)}, 20, 5),
    "bigram": (BIGRAM, 170, 5),
}


@pytest.mark.parametrize("case", CASES)
def test_greedy_is_an_argmax_loop_from_the_prompt(case):
    changes, seed, factor = CASES[case]
    model, parameters = tiny.model(seed, **changes)
    parameters = jax.tree.map(lambda x: factor * x, parameters)
    context, prompt = model.context, "dab c"
    found = generate(model, parameters, VOCABULARY, settings(strategy="greedy", prompt=prompt, number=2))

    exact = references.float64(parameters)
    ids, state = [tiny.SYMBOLS.index(symbol) for symbol in prompt], references.zero_state(exact, 1)
    for t in range(len(prompt) + LENGTH - context):
        state, logits = references.read_context(exact, state, np.array(ids[t : t + context])[:, None], tiny.V)
        if t + context >= len(prompt):
            ids.append(int(logits.argmax()))
    expected = "".join(tiny.SYMBOLS[i] for i in ids)
    assert len(set(expected[len(prompt) :])) > 2, "a constant text proves little: use another seed"
    assert found == [expected] * 2


def test_drawn_texts_continue_the_prompt_differently():
    model, parameters = tiny.model()
    texts = generate(model, parameters, VOCABULARY, settings(prompt="abba"))
    assert all(text.startswith("abba") and len(text) == 4 + LENGTH for text in texts)
    assert len(texts) == NUMBER
    assert len(set(texts)) > NUMBER // 2


@pytest.mark.parametrize("symbols", [1, 2, 5, 27, 100, 1001])
def test_cumulative_sums(symbols):
    p = np.random.default_rng(0).dirichlet(np.ones(symbols), 3)
    np.testing.assert_allclose(cumulative(jnp.asarray(p, jnp.float32)), np.cumsum(p, axis=1), rtol=1e-5)


def test_a_draw_selects_the_symbol_where_the_cumulative_distribution_passes_it():
    """p = 0.25, 0, 0.5, 0.25 at temperature 1, squared and normalised (1/6, 0, 4/6, 1/6) at 1/2."""
    logits = jnp.log(jnp.asarray([0.25, 0.0, 0.5, 0.25]))[None].repeat(7, axis=0)
    below_one = np.nextafter(np.float32(1), np.float32(0))
    uniform = jnp.asarray([0.0, 0.2, 0.24, 0.26, 0.74, 0.8, below_one], jnp.float32)
    warm, cold = (next_token(SamplingRule("temperature", 0, False), uniform, logits, t, 1.0) for t in (1.0, 0.5))
    assert warm.tolist() == [0, 0, 0, 2, 2, 3, 3]
    assert cold.tolist() == [0, 2, 2, 2, 2, 2, 3]
    # With top_k = 1 only symbol 2 is left, however near 1 the draw is.
    assert next_token(SamplingRule("temperature", 1, False), uniform, logits, 1.0, 1.0).tolist() == [2] * 7


def test_first_exceeding_is_the_rule_of_grokking_deep_learning():
    """Symbol i is chosen if the draw is between the largest probability before it and its own; 0 also above all."""
    p = np.array([0.2, 0.1, 0.4, 0.05, 0.25])
    logits = jnp.tile(jnp.log(jnp.asarray(p, jnp.float32)), (4000, 1))
    uniform = jax.random.uniform(jax.random.key(0), (4000,))
    ids = np.asarray(next_token(SamplingRule("first_exceeding", 0, False), uniform, logits, 1.0, 1.0))
    expected = np.array([0.2 + (1 - 0.4), 0.0, 0.4 - 0.2, 0.0, 0.0])
    np.testing.assert_allclose(np.bincount(ids, minlength=5) / len(ids), expected, atol=0.03)


def test_a_text_ends_with_its_first_stop_symbol():
    model, parameters = tiny.model()
    whole = generate(model, parameters, VOCABULARY, settings(prompt="cab"))
    cut = generate(model, parameters, VOCABULARY, settings(prompt="cab", stop="c"))
    assert any("c" in text[3:] for text in whole)
    for long, short in zip(whole, cut, strict=True):
        assert short == (long[: long.index("c", 3) + 1] if "c" in long[3:] else long)
    with pytest.raises(UserError, match=r"sample\.stop='z' is not a symbol"):
        generate(model, parameters, VOCABULARY, settings(stop="z"))


def test_words_are_joined_by_spaces():
    words = Vocabulary("word", ("the", "cat", "sat", "<eos>", "<unk>"), unknown="<unk>")
    model, parameters = tiny.model()
    texts = generate(model, parameters, words, settings(prompt="the cat sat the"))
    assert all(text.startswith("the cat sat the ") for text in texts)
    assert all(len(text.split(" ")) == 4 + LENGTH and set(text.split(" ")) <= set(words.symbols) for text in texts)


def test_number_and_length_of_texts_and_their_seed():
    model, parameters = tiny.model()
    first, again, other = (generate(model, parameters, VOCABULARY, settings(seed=seed)) for seed in (4, 4, 5))
    assert [len(text) for text in first] == [1 + LENGTH] * NUMBER
    assert first == again
    assert not set(first) & set(other)
    short = generate(model, parameters, VOCABULARY, settings(number=1, length=2))
    assert [len(text) for text in short] == [1 + 2]


def test_starts_are_random():
    model, parameters = tiny.model()
    starts = [text[0] for text in generate(model, parameters, VOCABULARY, settings())]
    assert set(starts) == set(tiny.SYMBOLS)


def test_a_prompt_longer_than_length_is_continued():
    model, parameters = tiny.model()
    prompt = "abcd" * 75
    (text,) = generate(model, parameters, VOCABULARY, settings(prompt=prompt, number=1, length=20))
    assert text.startswith(prompt)
    assert len(text) == 320


@pytest.mark.parametrize(
    ("vocabulary", "end"),
    [
        (Vocabulary("char", tuple("ab\ncd")), 2),
        (Vocabulary("char", tuple(" abcd")), 0),  # no line end: as after a space
        (Vocabulary("word", ("the", "cat", "sat", "<eos>", "<unk>"), unknown="<unk>"), 3),
    ],
)
def test_a_text_starts_as_after_a_line_end_which_is_not_shown(vocabulary, end):
    """Greedy, against the model's own prediction after the line end."""
    model, parameters = tiny.model(3)
    texts = generate(model, parameters, vocabulary, settings(start="line", strategy="greedy", number=2, length=3))
    _, logits = model.apply({"params": parameters}, jnp.array([[end]]), model.initial_carry(1))
    first = vocabulary.symbols[int(logits[0, 0].argmax())]
    assert texts[0] == texts[1]
    assert texts[0].startswith(first)
    assert len(vocabulary.encode(texts[0])) == 3


def test_suppressed_symbols_are_never_drawn():
    expected = np.where(np.isin(np.arange(5), (1, 3)), 0, P)
    assert_drawn_from(draw(suppress=("a", "c")), expected / expected.sum())
    with pytest.raises(UserError, match="suppress has no effect on strategy=first_exceeding"):
        draw(suppress=("a",), strategy="first_exceeding")
    with pytest.raises(UserError, match=r"config\.sample\.suppress='z' is not a symbol"):
        draw(suppress=("a", "z"))
    with pytest.raises(UserError, match="leaves no symbol"):
        draw(suppress=tuple(tiny.SYMBOLS))


def test_the_unknown_character_is_never_drawn():
    model, parameters = tiny.model()
    vocabulary = Vocabulary("char", (" ", "a", "b", "c", "\ufffd"), unknown="\ufffd")
    for start in ("line", "random"):
        texts = generate(model, parameters, vocabulary, settings(start=start))
        assert set("".join(texts)) == set(" abc")


def test_unknown_symbols_in_a_prompt_are_an_error_that_names_them():
    model, parameters = tiny.model()
    with pytest.raises(UserError) as caught:
        generate(model, parameters, VOCABULARY, settings(prompt="abXcY"))
    assert all(part in str(caught.value) for part in ("config.sample.prompt", "X", "Y")), caught.value
    assert "\n" not in str(caught.value)
    words = Vocabulary("word", ("the", "cat", "sat", "<eos>", "<unk>"), unknown="<unk>")
    with pytest.raises(UserError, match="zebra"):  # not silently <unk>
        generate(model, parameters, words, settings(prompt="the zebra"))


def test_a_bigram_model_needs_a_prompt_of_two():
    model, parameters = tiny.model(**BIGRAM)
    with pytest.raises(UserError, match=r"config\.sample\.prompt must have at least 2"):
        generate(model, parameters, VOCABULARY, settings(prompt="a"))


def test_more_likely_symbols_than_the_corpus_has_are_an_error():
    model, parameters = tiny.model()
    with pytest.raises(UserError, match=rf"config\.sample\.top_k must be at most {tiny.V}, .*, not {tiny.V + 1}"):
        generate(model, parameters, VOCABULARY, settings(top_k=tiny.V + 1))
