"""Every regulariser acts where it says and nowhere else: against a plain loop over time, written here by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import base
from lm.data.corpora import Corpus
from lm.data.text import Vocabulary
from lm.errors import UserError
from lm.model import dropout, losses
from lm.model.dropout import SITES, Noise, drop, drop_rows, drop_weights, time_mask, window_mask, zoneout_mask
from lm.model.language_model import count_parameters, make_model
from lm.training import optim
from lm.training.setup import make_setup
from lm.training.step import train_step
from tests.helpers import tiny

T, B, V, D, H = 3, 3, 11, 5, (4, 5)
KEEP = 0.6
TIME_SITES = ("input", "between", "output", "recurrent", "carried")
WINDOW_SITES = ("hidden", "embedding", "weight_drop")


def small_config(**changes):
    """A two-layer LSTM; changes: dotted keys with __ for dots."""
    config = base()
    config.data.batch_size, config.data.unroll = B, T
    config.model.input, config.model.embedding_size, config.model.hidden = "embedding", D, H
    for role in ("embedding", "input", "recurrent", "bias", "output", "output_bias"):
        config.init[role] = ("uniform", -0.8, 0.8)
    config.train.steps = 4
    config.train.steps_per_dispatch = 4
    for key, value in changes.items():
        config.update_from_flattened_dict({key.replace("__", "."): value})
    return config


def corpus(splits=("train", "valid")):
    texts = {split: np.random.default_rng(7).integers(0, V, 300).astype(np.uint8) for split in splits}
    return Corpus("test", Vocabulary("char", tuple("abcdefghijk")), texts, {})


def make(config):
    """(model, parameters, window [T + 1, B], carry of normal numbers, weights [T, B])"""
    model = make_model(config, V)
    rng = np.random.default_rng(3)
    window = jnp.asarray(rng.integers(0, V, (T + 1, B)))
    carry = tiny.draw(jax.eval_shape(lambda: model.initial_carry(B)), seed=4)
    weights = jnp.asarray(rng.uniform(0.1, 1, (T, B)), jnp.float32)
    return model, tiny.draw(shapes_of(model)), window, carry, weights


def shapes_of(model):
    return jax.eval_shape(model.draw, jax.random.key(1))


def noise_of(sites=(), mask="elementwise", zoneout=(), seed=5):
    keep = {site: jnp.float32(KEEP) for site in sites}
    return Noise(jax.random.key(seed), keep, {name: jnp.float32(0.3) for name in zoneout}, mask)


# --- A plain model ----------------------------------------------------------------------------------------------


def masks_of(noise):
    """Every mask of a window, drawn as the model draws them: [site, layer] -> array. All sites must be active."""
    masks = {"input": {0: time_mask(noise, "input", (T, B, D))}}
    masks["embedding"] = {0: window_mask(noise, "embedding", (V,))}
    masks["between"] = {1: time_mask(noise, "between", (T, B, H[0]), 1)}
    masks["output"] = {0: time_mask(noise, "output", (T, B, H[-1]))}
    for site in ("recurrent", "carried"):
        masks[site] = {n: time_mask(noise, site, (T, B, units), n) for n, units in enumerate(H)}
    masks["hidden"] = {n: window_mask(noise, "hidden", (B, units), n) for n, units in enumerate(H)}
    for name in ("memory", "output"):
        masks[f"zoneout {name}"] = {n: zoneout_mask(noise, name, (T, B, units), n) for n, units in enumerate(H)}
    ones = {n: {"w_h": jnp.ones((units, 4 * units))} for n, units in enumerate(H)}
    masks["weight_drop"] = {n: drop_weights(noise, one, ("w_h",), n)["w_h"] for n, one in ones.items()}
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (T, *x.shape[1:])) if x.ndim == 3 else x, masks)


def plain_objective(parameters, carry, window, weights, masks, terms):
    """The objective and the nats [T, B], one time step after the other, masks written out where they act."""
    table = parameters["embedding"] * masks["embedding"][0][:, None]
    x = [m * table[ids] for m, ids in zip(masks["input"][0], window[:-1], strict=True)]
    for layer, (c, h) in enumerate(carry):
        if layer:
            x = [m * x_t for m, x_t in zip(masks["between"][layer], x, strict=True)]
        p = parameters[f"layer_{layer}"]
        w_h = p["w_h"] * masks["weight_drop"][layer]
        keep_c, keep_h = masks["zoneout memory"][layer], masks["zoneout output"][layer]
        outputs = []
        for t in range(T):
            z = x[t] @ p["w_x"] + (masks["hidden"][layer] * h) @ w_h + p["b"][None]
            i, f, g, o = jnp.split(z, 4, axis=-1)
            new_c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * (jnp.tanh(g) * masks["recurrent"][layer][t])
            new_h = jax.nn.sigmoid(o) * jnp.tanh(new_c)
            c = keep_c[t] * c + (1 - keep_c[t]) * new_c
            h = masks["carried"][layer][t] * (keep_h[t] * h + (1 - keep_h[t]) * new_h)
            outputs.append(h)
        x = outputs
    raw = jnp.stack(x)
    dropped = masks["output"][0] * raw
    log_p = jax.nn.log_softmax(dropped @ parameters["output_kernel"] + parameters["output_bias"][None, None])
    nats = -jnp.take_along_axis(log_p, window[1:, :, None], -1)[..., 0]
    e = terms["label_smoothing"]
    objective = jnp.sum(weights * ((1 - e) * nats - e * log_p.mean(-1)))
    objective += terms["activation"] * jnp.square(dropped).mean()
    objective += terms["temporal_activation"] * jnp.square(raw[1:] - raw[:-1]).mean()
    return objective, nats


# What a case switches on: sites of dropout, kinds of zoneout, terms.
TERMS = {"label_smoothing": 0.2, "activation": 2.0, "temporal_activation": 1.5}
SINGLE = [*((site,) for site in SITES), ("zoneout memory",), ("zoneout output",), *((term,) for term in TERMS)]
EVERYTHING_ON = (*SITES, "zoneout memory", "zoneout output", *TERMS)
CASES = [
    *(("elementwise", *names) for names in (*SINGLE, EVERYTHING_ON)),
    *(("variational", *names) for names in (*((site,) for site in TIME_SITES), EVERYTHING_ON)),
]


@pytest.fixture(scope="module")
def compiled():
    """Value and gradient of the plain objective and of the model's, and what they are applied to.

    All sites are active in both, so that each is compiled once: what a case leaves off has probability 1, or 0.
    """
    model, parameters, window, carry, weights = make(small_config())

    def plain(parameters, carry, masks, terms):
        return plain_objective(parameters, carry, window, weights, masks, terms)

    def ours(parameters, carry, noise, terms):
        variables = {"params": parameters}
        objective, (_, nats) = model.apply(variables, window, carry, weights, noise, terms, method="loss")
        return objective, nats

    plain, ours = (jax.jit(jax.value_and_grad(f, argnums=(0, 1), has_aux=True)) for f in (plain, ours))
    draw = jax.jit(masks_of)
    return lambda p, c, noise, terms: plain(p, c, draw(noise), terms), ours, (parameters, carry)


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case) if len(case) == 2 else f"{case[0]} all")
def test_objective_and_gradient_are_those_of_the_plain_loop(compiled, case):
    plain, ours, at = compiled

    def settings(kind, names):
        keep = {site: jnp.float32(KEEP if site in names else 1) for site in SITES}
        zoneout = {name: jnp.float32(0.3 if f"zoneout {name}" in names else 0) for name in ("memory", "output")}
        terms = {name: jnp.float32(value if name in names else 0) for name, value in TERMS.items()}
        return Noise(jax.random.key(5, impl="unsafe_rbg"), keep, zoneout, kind), terms  # compiles fastest

    kind, *names = case
    expected, found = (f(*at, *settings(kind, names)) for f in (plain, ours))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=5e-6), found, expected)
    off = plain(*at, *settings(kind, ()))
    assert abs(float(off[0][0] - found[0][0])) > 1e-3, "the regulariser does nothing"


# --- Where masks are shared, and their expectation --------------------------------------------------------------


def test_elementwise_masks_are_drawn_for_every_element_and_variational_ones_once_for_all_times():
    x = jnp.ones((50, 20, 30))
    for site in ("input", "between", "output"):
        fresh, locked = (np.asarray(drop(noise_of([site], kind), site, x)) for kind in dropout.MASKS)
        np.testing.assert_array_equal(locked, np.broadcast_to(locked[:1], locked.shape))
        assert set(np.unique(fresh)) == set(np.unique(locked)) == {np.float32(0), np.float32(1) / np.float32(KEEP)}
        for axis in range(3):  # no axis is shared, but for time where it should be
            assert np.any(np.diff(fresh, axis=axis) != 0)
            assert np.any(np.diff(locked, axis=axis) != 0) == (axis != 0)
        # neighbours in time are independent: P(equal) = keep^2 + (1 - keep)^2
        assert np.mean(fresh[1:] == fresh[:-1]) == pytest.approx(KEEP**2 + (1 - KEEP) ** 2, abs=0.02)


def test_embedding_dropout_drops_a_symbol_in_the_entire_window():
    ids = jnp.asarray(np.random.default_rng(0).integers(0, V, (40, 20)))
    kept = np.asarray(drop_rows(noise_of(["embedding"]), jnp.ones((40, 20, 7)), ids, V))
    by_symbol = [np.unique(kept[np.asarray(ids) == symbol]) for symbol in range(V)]
    assert all(len(values) == 1 for values in by_symbol)
    assert len(np.unique(by_symbol)) == 2


def test_sites_layers_and_steps_have_masks_of_their_own():
    shape = (8, 8, 8)
    masks = {
        (site, layer, seed): np.asarray(time_mask(noise_of(SITES, seed=seed), site, shape, layer))
        for site in SITES
        for layer in (0, 1, 2)
        for seed in (5, 6)
    }
    assert len({mask.tobytes() for mask in masks.values()}) == len(masks)


@pytest.mark.parametrize("site", SITES)
def test_masks_are_unbiased(site):
    """The mean over many draws is the input, to four standard errors."""
    draws = 3000
    keys = jax.random.split(jax.random.key(0), draws)

    def draw(key):
        noise = noise_of([site]).replace(key=key)
        if site == "embedding":
            return drop_rows(noise, jnp.ones((2, 2, 2)), jnp.arange(4).reshape(2, 2), V)
        if site == "weight_drop":
            return drop_weights(noise, {"w_h": jnp.ones((2, 2)), "b": jnp.ones(2)}, ("w_h",))["w_h"]
        if site in WINDOW_SITES:
            return window_mask(noise, site, (2, 2))
        return drop(noise, site, jnp.ones((2, 2, 2)))

    error = np.asarray(jax.vmap(draw)(keys)).mean(axis=0) - 1
    assert np.all(np.abs(error) < 4 * np.sqrt((1 - KEEP) / KEEP / draws))


def test_weight_drop_leaves_input_weights_and_biases_alone():
    p = {"w_x": jnp.ones((3, 8)), "w_h": jnp.ones((2, 8)), "b": jnp.ones(8)}
    dropped = drop_weights(noise_of(["weight_drop"]), p, ("w_h",))
    assert dropped["w_x"] is p["w_x"]
    assert dropped["b"] is p["b"]
    assert len(np.unique(dropped["w_h"])) == 2


# --- Evaluation -------------------------------------------------------------------------------------------------

EVERYTHING = {f"keep_prob__{site}": 0.5 for site in SITES} | {
    "penalty__activation": 2.0,
    "penalty__temporal_activation": 1.0,
    "loss__label_smoothing": 0.1,
    "dropout__mask": "variational",
}


def test_evaluation_has_no_noise():
    model, parameters, window, carry, _ = make(small_config())
    noisy = make_model(small_config(**EVERYTHING), V)
    evaluated = [jax.jit(functools.partial(m.apply, method="nats")) for m in (model, noisy)]
    scores = [evaluate({"params": parameters}, window, carry) for evaluate in evaluated]
    jax.tree.map(np.testing.assert_array_equal, *scores)


def test_zoneout_takes_its_expectation_in_evaluation():
    """For one step, where it is exact: the state is rate x previous + (1 - rate) x new."""
    model, parameters, window, carry, _ = make(small_config())
    zoned = make_model(small_config(zoneout__memory=0.25, zoneout__output=0.1), V)

    def apply(model):
        return jax.jit(model.apply)({"params": parameters}, window[:1], carry)

    (plain, _), *_ = apply(model)
    (mixed, _), *_ = apply(zoned)
    np.testing.assert_allclose(mixed.c, 0.25 * carry[0].c + 0.75 * plain.c, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mixed.h, 0.1 * carry[0].h + 0.9 * plain.h, rtol=1e-5, atol=1e-6)


def test_zoneout_in_training_keeps_whole_units_and_is_the_expectation_on_average():
    model, parameters, window, carry, _ = make(small_config())
    zoned = make_model(small_config(zoneout__memory=0.3), V)

    def memory(key):
        noise = noise_of(zoneout=["memory"]).replace(key=key)
        return model.apply({"params": parameters}, window[:1], carry, noise, method="features")[0][0].c

    draws = np.asarray(jax.jit(jax.vmap(memory))(jax.random.split(jax.random.key(2), 3000)))
    expected = np.asarray(zoned.apply({"params": parameters}, window[:1], carry)[0][0].c)
    assert np.mean(np.isclose(draws, carry[0].c)) == pytest.approx(0.3, abs=0.02)
    np.testing.assert_allclose(draws.mean(0), expected, atol=5 * draws.std() / np.sqrt(3000))


# --- Cost where nothing is asked for ----------------------------------------------------------------------------


def test_what_is_off_is_not_in_the_compiled_step():
    def program(**changes):
        setup = make_setup(small_config(**changes), corpus())
        hyper = optim.hyper_of(setup.config)
        state = setup.state_shapes
        arguments = state, jnp.zeros(300, jnp.uint8), hyper
        jaxpr = jax.make_jaxpr(functools.partial(train_step, setup.program))(*arguments)
        return hyper, str(jaxpr)

    hyper, plain = program()
    assert (hyper.keep, hyper.zoneout, hyper.objective) == ({}, {}, {})
    assert "random_bits" not in plain
    sizes = {key: len(program(**{key: value})[1]) for key, value in EVERYTHING.items() if key != "dropout__mask"}
    assert all(size > len(plain) for size in sizes.values()), sizes


# --- Loss options and weight tying ------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [10**6, 40])
def test_label_smoothing_has_its_exact_gradient_and_true_nats_in_chunks_too(monkeypatch, chunk):
    monkeypatch.setattr(losses, "CHUNK_LOGITS", chunk)
    rng = np.random.default_rng(0)
    x, kernel, bias = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((17, 4), (4, V), (V,)))
    targets, weights = jnp.asarray(rng.integers(0, V, 17)), jnp.asarray(rng.uniform(size=17), jnp.float32)

    def smoothed(x, kernel, bias):
        target = 0.9 * jax.nn.one_hot(targets, V) + 0.1 / V
        return -jnp.sum(weights * jnp.sum(target * jax.nn.log_softmax(x @ kernel + bias[None]), -1))

    def ours(x, kernel, bias):
        return losses.softmax_loss(x, kernel, bias, targets, weights, jnp.float32(0.1))

    objective, nats = ours(x, kernel, bias)
    assert float(objective) == pytest.approx(float(smoothed(x, kernel, bias)), rel=1e-5)
    np.testing.assert_allclose(nats, losses.softmax_nats(x, kernel, bias, targets), rtol=1e-5, atol=1e-6)
    found = jax.jit(jax.grad(lambda *a: ours(*a)[0], argnums=(0, 1, 2)))(x, kernel, bias)
    expected = jax.jit(jax.grad(smoothed, argnums=(0, 1, 2)))(x, kernel, bias)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)


def test_last_step_features_sends_only_the_last_loss_below_the_softmax():
    model, parameters, window, carry, _ = make(small_config())

    def gradients(weighting, gradient):
        def objective(parameters):
            weights = losses.target_weights(weighting, T, B)
            return model.apply({"params": parameters}, window, carry, weights, gradient=gradient, method="loss")[0]

        return jax.jit(jax.grad(objective))(parameters)

    found, full = gradients("sum", "last_step_features"), gradients("sum", "full")
    last = gradients("last_step_sum", "full")
    for name in parameters:
        expected = full if name.startswith("output") else last
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found[name], expected[name])


def test_tied_softmax_reads_the_embedding_table():
    config = small_config(model__output="tied", model__hidden=(4, D))
    model, parameters, window, carry, weights = make(config)
    assert "output_kernel" not in parameters
    untied = make_model(small_config(model__hidden=(4, D)), V)
    assert count_parameters(parameters) == count_parameters(shapes_of(untied)) - V * D

    def tied_loss(parameters):
        return model.apply({"params": parameters}, window, carry, weights, method="loss")[0]

    def untied_loss(table, kernel):
        p = parameters | {"embedding": table, "output_kernel": kernel}
        return untied.apply({"params": p}, window, carry, weights, method="loss")[0]

    table = parameters["embedding"]
    assert float(tied_loss(parameters)) == pytest.approx(float(untied_loss(table, table.T)), rel=1e-6)
    d_table, d_kernel = jax.jit(jax.grad(untied_loss, argnums=(0, 1)))(table, table.T)
    found = jax.jit(jax.grad(tied_loss))(parameters)["embedding"]
    np.testing.assert_allclose(found, d_table + d_kernel.T, rtol=1e-4, atol=1e-5)


# --- Errors -----------------------------------------------------------------------------------------------------

BAD = {
    "keep_prob.input": {"keep_prob__input": 0.0},
    "keep_prob.hidden": {"keep_prob__hidden": 1.5},
    "keep_prob.embedding": {"keep_prob__embedding": 0.5, "model__input": "one_hot"},
    "zoneout.memory": {"zoneout__memory": 1.0},
    "zoneout.output": {"zoneout__output": -0.1},
    "penalty.activation": {"penalty__activation": -1.0},
    "penalty.temporal_activation": {"penalty__temporal_activation": 1.0, "data__unroll": 1},
    "loss.label_smoothing": {"loss__label_smoothing": 1.0},
    "loss.gradient": {"loss__gradient": "some"},
    "loss.weighting": {"loss__weighting": "some"},
    "dropout.mask": {"dropout__mask": "locked"},
    "model.output=tied needs config.model.embedding_size": {"model__output": "tied", "model__embedding_size": 4},
    "model.output=tied needs config.model.input": {"model__output": "tied", "model__input": "one_hot"},
    "model.output=crf is for labelled sequences": {"model__output": "crf"},
    "model.output: unknown": {"model__output": "tie"},
    "model.embedding_size": {"model__embedding_size": 0},
}


@pytest.mark.parametrize("key", BAD)
def test_a_wrong_setting_is_an_error_that_names_its_key(key):
    with pytest.raises(UserError, match=f"^config.{key}"):
        make_setup(small_config(**BAD[key]), corpus())
