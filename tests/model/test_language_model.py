"""The language model against float64 NumPy, its parameters, windows and carried state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.errors import UserError
from lm.model.language_model import count_parameters, make_model
from tests.helpers import references, tiny

EMBEDDED = {"model__input": "embedding", "model__embedding_size": 4}
BIGRAM = {"model__input": "bigram", "model__embedding_size": 4}
CASES = {"one_hot": {}, "embedding two layers": {**EMBEDDED, "model__hidden": (3, 2)}, "bigram": BIGRAM}


def count(vocabulary, **changes):
    """Number of parameters of the tiny config with changes. Allocates nothing."""
    model = make_model(tiny.config(**changes), vocabulary)
    return count_parameters(jax.eval_shape(model.draw, jax.random.key(0)))


def test_parameter_counts_match_counts_by_hand():
    assert count(27, model__hidden=(64,)) == (27 + 64 + 1) * 4 * 64 + (64 + 1) * 27 == 25_307
    assert count(27, model__hidden=(64,), model__cell="lstm_unfused") == 25_307
    assert count(27, model__hidden=(64,), model__input="embedding", model__embedding_size=128) == 54_619
    assert count(27, model__hidden=(64,), model__input="bigram", model__embedding_size=128) == 144_475
    ptb = {"model__input": "embedding", "model__embedding_size": 200, "model__hidden": (256, 128)}
    assert count(10_000, **ptb) == 2_000_000 + 457 * 1024 + 385 * 512 + 129 * 10_000 == 3_955_088
    assert count(10_000, **ptb, model__output="dense_without_bias") == 3_955_088 - 10_000
    tied = {"model__input": "embedding", "model__embedding_size": 128, "model__hidden": (256, 128)}
    assert count(10_000, **tied, model__output="tied") == 1_280_000 + 385 * 1024 + 385 * 512 + 10_000


def test_the_id_of_a_bigram_is_a_plus_27_b():
    model = make_model(tiny.config(**BIGRAM), 27)
    parameters = jax.eval_shape(model.draw, jax.random.key(0))
    tokens = jnp.asarray([[0, 1], [1, 26], [26, 26], [0, 0]], jnp.uint8)
    ids = jax.jit(lambda p, x: model.apply({"params": p}, x, method="input_ids"))(tiny.draw(parameters), tokens)
    np.testing.assert_array_equal(ids, [[0 + 27 * 1, 1 + 27 * 26], [1 + 27 * 26, 728], [26, 26]])


@pytest.mark.parametrize("case", CASES)
def test_nats_match_float64_numpy_from_window_to_window(case):
    """11 characters give 10 predictions, or 9 in a bigram model, whose first target is the third character.

    Compares two windows in a row with float64 NumPy; the second begins with the last character of the first. Unless
    the input is a bigram, the result also equals that of one long window.
    """
    model, parameters = tiny.model(**CASES[case])
    context = 2 if case == "bigram" else 1
    text = tiny.text(84).reshape(21, 4)
    read = jax.jit(lambda window, carry: model.apply({"params": parameters}, window, carry, method="nats"))

    exact = references.float64(parameters)
    carry, state = model.initial_carry(4), references.zero_state(exact, 4)
    for window in (text[:11], text[10:]):
        carry, found = read(window, carry)
        state, expected = references.window_nats(exact, state, window, context)
        assert found.shape == expected.shape == (11 - context, 4)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        for (c, h), layer in zip(state, carry, strict=True):
            np.testing.assert_allclose(layer.c, c, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(layer.h, h, rtol=1e-5, atol=1e-6)
    if context == 1:
        _, long = references.window_nats(exact, references.zero_state(exact, 4), text)
        np.testing.assert_allclose(found, long[10:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_the_objective_is_the_weighted_sum_of_nats_with_its_gradient(case):
    """Against central differences in float64 for every single parameter."""
    model, parameters = tiny.model(**CASES[case])
    context = 2 if case == "bigram" else 1
    window = tiny.text(12).reshape(6, 2)
    weights = np.random.default_rng(0).uniform(0, 1, (6 - context, 2)).astype(np.float32)

    def objective(parameters):
        carry = model.initial_carry(2)
        arguments = jnp.asarray(window), carry, jnp.asarray(weights)
        return model.apply({"params": parameters}, *arguments, method="loss")

    (value, (_, nats)), gradient = jax.jit(jax.value_and_grad(objective, has_aux=True))(parameters)
    exact = references.float64(parameters)

    def reference(p):
        return float(np.sum(weights * references.window_nats(p, references.zero_state(p, 2), window, context)[1]))

    assert value == pytest.approx(reference(exact), rel=1e-5)
    np.testing.assert_allclose(np.sum(weights * nats), value, rtol=1e-5)
    found = references.leaves(gradient)
    for name, expected in references.leaves(references.central_differences(reference, exact)).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)


def test_initial_carries_are_zeros_or_have_a_first_unit_of_one():
    zero, _ = tiny.model(model__hidden=(3, 2))
    assert [(x.c.shape, x.h.shape) for x in zero.initial_carry(4)] == [((4, 3), (4, 3)), ((4, 2), (4, 2))]
    assert all((np.asarray(x) == 0).all() for x in jax.tree.leaves(zero.initial_carry(4)))
    book, _ = tiny.model(model__initial_carry="first_unit_one")
    for x in jax.tree.leaves(book.initial_carry(2)):
        np.testing.assert_array_equal(x, [[1, 0, 0], [1, 0, 0]])


def test_every_role_uses_its_own_initialiser():
    roles = ("embedding", "input", "recurrent", "bias", "output", "output_bias")
    config = tiny.config(**EMBEDDED, model__hidden=(3, 2))
    for number, role in enumerate(roles):
        config.init[role] = ("constant", float(number))
    model = make_model(config, tiny.V)
    parameters = references.leaves(jax.jit(model.draw)(jax.random.key(0)))
    expected = {"embedding": (0, (5, 4)), "output_kernel": (4, (2, 5)), "output_bias": (5, (5,))}
    for layer, (inputs, units) in enumerate([(4, 3), (3, 2)]):
        expected[f"layer_{layer}.w_x"] = (1, (inputs, 4 * units))
        expected[f"layer_{layer}.w_h"] = (2, (units, 4 * units))
        expected[f"layer_{layer}.b"] = (3, (4 * units,))
    assert {name: (x.flat[0], x.shape) for name, x in parameters.items()} == expected
    assert all((x == x.flat[0]).all() for x in parameters.values())


def test_parameters_of_equal_shape_differ_and_depend_on_the_key_alone():
    model = make_model(tiny.config(**EMBEDDED, model__hidden=(4, 4)), tiny.V)
    draw = jax.jit(model.draw)
    first, again, other = (references.leaves(draw(jax.random.key(seed))) for seed in (0, 0, 1))
    assert not np.intersect1d(first["layer_0.w_x"], first["layer_1.w_x"]).size
    assert not np.intersect1d(first["layer_0.w_h"], first["layer_0.w_x"]).size
    for name, x in first.items():
        np.testing.assert_array_equal(x, again[name])
        assert (x != other[name]).all(), name


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model__cell": "ltsm"}, ["config.model.cell", "'ltsm'", "lstm"]),
        ({"model__input": "embedding"}, ["config.model.embedding_size", "0"]),
        ({"model__output": "tied"}, ["config.model.output", "tied", "embedding"]),
    ],
)
def test_what_makes_no_model_is_named(changes, words):
    with pytest.raises(UserError) as caught:
        make_model(tiny.config(**changes), tiny.V)
    assert all(word in str(caught.value) for word in words), caught.value
