"""Every cell in float64 against NumPy loops written from the papers: values and all gradients."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from configs.base import base
from lm.cells import recurrence
from lm.cells.kinds import ParallelCell, StepCell, zero_carry
from lm.cells.recurrence import RecurrentNoise
from lm.cells.table import CELLS, check_bias, make_cell
from lm.errors import UserError
from lm.model.initialisers import initialiser
from lm.model.language_model import make_model
from tests.helpers import cell_references, tiny
from tests.helpers.few import EACH_CELL
from tests.helpers.quick import compiled, solve_in_order

T, B, D, H, P = 5, 2, 4, 3, 2


def cell_of(name):
    return make_cell(tiny.config(model__cell=name, model__projection=P).model)


def case(name, integers=False):
    """(cell, parameters, x [T, B, D], carry, weights of the outputs [T, B, P]) in float64."""
    cell, rng = cell_of(name), np.random.default_rng(sum(map(ord, name)))
    p = {n: rng.normal(0, 0.8, shape) for n, (_, shape) in cell.parameters(D, H).items()}
    x = rng.integers(0, D, (T, B)) if integers else rng.normal(size=(T, B, D))
    carry = {n: rng.normal(size=v.shape) for n, v in zero_carry(cell, B, H)._asdict().items()}
    if name == "slstm":
        carry["scaled_n"] = np.abs(carry["scaled_n"]) + 0.5
    weights = rng.normal(size=(T, B, cell.output_size(H)))
    return cell, p, x, cell.carry(**carry), weights


def floats(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def close(found, expected, tolerance=1e-10):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), found, expected)


def comparable(name, carry):
    """A carry as a dict. For the sLSTM, in a form that does not depend on its stabiliser."""
    carry = dict(carry if isinstance(carry, dict) else carry._asdict())
    if name == "slstm":
        m = carry.pop("m")
        carry |= {name: np.exp(m) * carry[name] for name in ("scaled_c", "scaled_n")}
    return carry


def scalar(carry, h, weights):
    """A number that depends on all outputs and on every given field of the carry."""
    return (weights * h).sum() + sum((k + 1) * (v * v).sum() for k, v in enumerate(carry))


@pytest.mark.parametrize("name", CELLS)
def test_values_and_all_gradients_match_a_numpy_loop(name):
    """To 1e-10. Gradients with respect to every parameter, input and initial state, by complex steps."""
    cell, p, x, carry, weights = case(name)
    step = cell_references.STEPS[name]

    def fields(carry):  # of an sLSTM, h alone: the others depend on its stabiliser
        return [v for n, v in sorted(carry.items()) if name != "slstm" or n == "h"]

    def ours(p, x, carry):
        carry, h = recurrence.run_cell(cell, p, x, carry)
        return scalar(fields(carry._asdict()), h, weights), (carry, h)

    def reference(arguments):
        carry, h = cell_references.loop(step, arguments["p"], arguments["x"], arguments["carry"])
        return scalar(fields(carry), h, weights)

    with jax.enable_x64(True):
        value_and_gradient = compiled(jax.value_and_grad(ours, argnums=(0, 1, 2), has_aux=True))
        (value, (after, h)), (d_p, d_x, d_carry) = floats(value_and_gradient(p, x, carry))
    expected_after, expected_h = cell_references.loop(step, p, x, carry._asdict())
    arguments = {"p": p, "x": x, "carry": carry._asdict()}
    close((value, h), (reference(arguments), expected_h))
    close(comparable(name, after), comparable(name, expected_after))
    close({"p": d_p, "x": d_x, "carry": d_carry._asdict()}, cell_references.complex_step(reference, arguments))


def noise_of(cell, carry, rng):
    """All noise that fits a cell, shared through time or not."""
    width = cell.output_size(H)
    update, hidden = (rng.integers(0, 2, shape) / 0.5 for shape in ((T, B, H), (B, width)))
    fields = {"c", "h"} & set(carry._fields)
    zoneout = {n: rng.integers(0, 2, (T, *getattr(carry, n).shape)) / 1.0 for n in sorted(fields)}
    return RecurrentNoise(
        hidden=hidden if "hidden" in cell.masks else None,
        update=update if "update" in cell.masks else None,
        carried=rng.integers(1, 3, (1, B, width)) / 1.0 if "h" in carry._fields else None,
        zoneout=zoneout,
    )


@pytest.mark.parametrize("name", EACH_CELL)
def test_noise_acts_at_its_place_and_the_fast_gradient_matches_autodiff(name):
    """Values against a NumPy loop with explicit zoneout and masks; gradients against autodiff of the plain loop."""
    cell, p, x, carry, weights = case(name)
    noise = noise_of(cell, carry, np.random.default_rng(4))
    step = cell_references.STEPS[name]

    def fast(p, x, carry, noise):
        return recurrence.run_cell(cell, p, x, carry, noise)

    def plain(p, x, carry, noise):
        if isinstance(cell, ParallelCell):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(recurrence, "solve_linear", solve_in_order)
                return recurrence.run_cell(cell, p, x, carry, noise)
        fixed, timed = recurrence.split_noise(noise, T)
        step, z, w, vectors = recurrence.prepare_loop(cell, p, x, carry)
        return recurrence.scan_plain(step, z, w, carry, vectors, fixed, timed)

    @compiled
    def both(p, x, carry, noise):
        def objective(function, p, x, carry):
            after, h = function(p, x, carry, noise)
            return scalar([after[-1]], h, weights), (after, h)

        gradient = jax.value_and_grad(objective, argnums=(1, 2, 3), has_aux=True)
        return gradient(fast, p, x, carry), gradient(plain, p, x, carry)

    with jax.enable_x64(True):
        found, expected = floats(both(p, x, carry, noise))
    close(found, expected)
    state, outputs = carry._asdict(), []
    for t in range(T):
        hidden = 1.0 if noise.hidden is None else noise.hidden
        new, h = step(p, x[t], state, hidden, 1.0 if noise.update is None else noise.update[t])
        new |= {n: keep[t] * state[n] + (1 - keep[t]) * new[n] for n, keep in noise.zoneout.items()}
        if noise.carried is not None:
            new["h"] = noise.carried[0] * new["h"]
            h = new["h"]
        state = new
        outputs.append(h)
    after, h = found[0][1]
    close(comparable(name, after), comparable(name, state))
    close(h, np.array(outputs))


@pytest.mark.parametrize("name", EACH_CELL)
def test_single_steps_on_ids_match_the_whole_window(name):
    """The way sampling runs a cell: windows of T = 1, with ids instead of one-hot vectors."""
    cell, p, ids, carry, _ = case(name, integers=True)
    run = compiled(functools.partial(recurrence.run_cell, cell))
    state, outputs = carry, []
    with jax.enable_x64(True):
        for t in range(T):
            state, h = run(p, ids[t][None], state)
            outputs.append(np.asarray(h[0]))
    expected, expected_h = cell_references.loop(cell_references.STEPS[name], p, np.eye(D)[ids], carry._asdict())
    close(np.array(outputs), expected_h)
    close(comparable(name, floats(state)), comparable(name, expected))


@pytest.mark.parametrize("name", EACH_CELL)
def test_a_model_keeps_the_shapes_of_its_carry_and_uses_every_parameter(name):
    model, parameters = tiny.model(model__cell=name, model__hidden=(4, 3), model__projection=P)
    carry = model.initial_carry(2)
    pointers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(carry)]
    assert len(set(pointers)) == len(pointers)  # they are donated

    def loss(parameters, carry):
        return model.apply({"params": parameters}, jnp.zeros((4, 2), jnp.int32), carry, jnp.ones((3, 2)), method="loss")

    gradient, (after, _) = jax.eval_shape(jax.grad(loss, has_aux=True), parameters, carry)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(lambda a: (a.shape, a.dtype), carry)
    assert jax.tree.structure(gradient) == jax.tree.structure(parameters)
    assert parameters["output_kernel"].shape == (model.cell.output_size(3), tiny.V)


def test_every_cell_has_a_reference_and_a_complete_docstring():
    assert set(cell_references.STEPS) == set(CELLS)
    for name in CELLS:
        cell = cell_of(name)
        equations = getattr(cell.equations, "func", cell.equations)
        text = " ".join(equations.__doc__.split())
        assert re.search(r"^ {8}([hy]' =|h =|then i, f)", equations.__doc__, re.MULTILINE), name
        cites = re.search(r'\(\d{4}\)[.,] "\w|\b[A-Z][a-z]+ et al\. \(\d{4}\)', text)
        assert cites or " No source" in text, f"{name}: cite the paper, or say 'No source'"
        assert " Parameters" in text, name
        assert re.search(r"\b(One|Two) bias", text), name


def test_arguments_that_would_broadcast_are_rejected():
    """The shapes in signatures are checked in tests."""
    z, carry = jnp.zeros((B, 4 * H)), zero_carry(CELLS["lstm"], B, H)
    assert CELLS["lstm"].equations(z, z, carry)[0].h.shape == (B, H)
    with pytest.raises(TypeCheckError, match="z_h"):
        CELLS["lstm"].equations(z, z[:1], carry)


# --- Variants of the LSTM ------------------------------------------------------------------------------------------


def test_lstm_unfused_computes_the_same_function_as_lstm():
    """Loss and gradients of the language model match each other and float64 NumPy to 1e-6."""
    unfused, p = tiny.model(model__cell="lstm_unfused", model__hidden=(4, 3))
    fused, _ = tiny.model(model__cell="lstm", model__hidden=(4, 3))
    rng = np.random.default_rng(0)
    window = jnp.asarray(rng.integers(0, tiny.V, (9, 3)))
    weights = np.full((8, 3), 1 / 24)

    def fuse(p):
        return {n: cell_references.fuse_lstm(v, jnp) if n.startswith("layer") else v for n, v in p.items()}

    def loss(p, cell):
        model, q = (unfused, p) if cell == "lstm_unfused" else (fused, fuse(p))
        arguments = window, model.initial_carry(3), weights
        return model.apply({"params": q}, *arguments, method="loss")[0]

    def reference(p):
        state = [{n: np.zeros((3, units)) for n in "ch"} for units in (4, 3)]
        nats, symbols = 0, np.asarray(window)
        for t in range(8):
            x = np.eye(tiny.V)[symbols[t]]
            for layer in range(2):
                step = cell_references.lstm_unfused
                state[layer], x = step(p[f"layer_{layer}"], x, state[layer])
            logits = x @ p["output_kernel"] + p["output_bias"]
            chosen = np.take_along_axis(logits, symbols[t + 1][:, None], axis=-1)[:, 0]
            nats = nats + (np.log(np.exp(logits).sum(axis=-1)) - chosen).sum()
        return nats / 24

    weights = jnp.asarray(weights, jnp.float32)
    run = compiled(jax.value_and_grad(loss), static_argnums=1)
    found = floats([run(p, cell) for cell in ("lstm_unfused", "lstm")])
    p = floats(p)
    expected = [reference(p), cell_references.complex_step(reference, p)]
    close(found[0], found[1], 1e-6)
    close(list(found[0]), expected, 1e-6)
    close(list(found[1]), expected, 1e-6)


def test_the_book_gradient_reaches_h_through_the_output_gate_only():
    """Its values are those of `lstm`. Without the weights of the output gate, d h_1 / d (c_0, h_0) is 0."""
    cell, p, x, carry, _ = case("lstm_book_gradient")
    whole = {"w_x": p["w_x"], "b": p["b"], "w_h": np.concatenate([p["w_h"], p["w_o"]], axis=-1)}
    blind = {**p, "w_o": np.zeros_like(p["w_o"])}

    @compiled
    def of_carry(p, carry):
        return jax.grad(lambda carry: recurrence.run_cell(cell, p, jnp.asarray(x[:2]), carry)[1][-1].sum())(carry)

    with jax.enable_x64(True):
        found = compiled(functools.partial(recurrence.run_cell, cell))(p, x, carry)
        expected = compiled(functools.partial(recurrence.run_cell, CELLS["lstm"]))(whole, x, carry)
        d, d_blind = of_carry(p, carry), of_carry(blind, carry)
    close(floats(found), floats(expected))
    assert np.abs(d.h).max() > 1e-3
    close(floats(d.c), np.zeros((B, H)))
    close(floats(d_blind), floats(jax.tree.map(np.zeros_like, carry)))


# --- Extreme values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["slstm", "min_lstm"])
def test_large_preactivations_stay_finite(name):
    cell, p, x, _, _ = case(name)
    p, x = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), (p, x))
    carry = zero_carry(cell, B, H)
    for factor in (300.0, -300.0):

        def objective(p, factor=factor):
            return recurrence.run_cell(cell, p, factor * x, carry)[1].sum()

        value, gradient = compiled(jax.value_and_grad(objective))(p)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, gradient)))


# --- Settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__cell": "ltsm"}, "config.model.cell: unknown 'ltsm'; known: elman_sigmoid,"),
        (
            {"model__cell": "lstm_projection"},
            "config.model.projection must be at least 1 with",
        ),
        ({"model__cell": "gru", "init__bias": ("lstm_bias", 1.0)}, "config.init.bias: lstm_bias fits cells"),
        ({"model__cell": "elman_tanh", "keep_prob__recurrent": 0.5}, "config.keep_prob.recurrent does not fit"),
        ({"model__cell": "lru", "keep_prob__hidden": 0.5}, "config.keep_prob.hidden does not fit"),
        ({"model__cell": "min_gru", "keep_prob__weight_drop": 0.5}, "config.keep_prob.weight_drop does not fit"),
        ({"model__cell": "slstm", "zoneout__memory": 0.5}, "config.zoneout.memory does not fit"),
    ],
)
def test_settings_that_do_not_fit_the_cell_are_rejected(changes, message):
    with pytest.raises(UserError) as error:
        make_model(tiny.config(**changes), tiny.V)
    assert str(error.value).startswith(message)


def test_a_role_without_an_initialiser_is_one_line(monkeypatch):
    shapes = (("w_x", "input", "D 4H"), ("w_h", "recurrent", "H 4H"), ("b", "offset", "4H"))
    monkeypatch.setitem(CELLS, "mine", StepCell(CELLS["lstm"].carry, CELLS["lstm"].equations, shapes))
    with pytest.raises(UserError, match=r"the role of the cell's parameter b, a key of config\.init: unknown 'offset'"):
        make_model(tiny.config(model__cell="mine"), tiny.V)


@pytest.mark.parametrize("name", ["lstm_norm", "lstm_coupled_norm", "gru_norm"])
def test_gains_start_at_one_and_scaled_weights_change_nothing(name):
    """Ba et al. (2016), table 1: the output does not depend on the scale of a whole weight matrix."""
    gains = [shape for role, shape in cell_of(name).parameters(D, H).values() if role == "gain"]
    assert len(gains) >= 2
    for shape in gains:
        np.testing.assert_array_equal(initialiser(base().init.gain)(jax.random.key(0), shape), 1.0)
    cell, p, x, carry, _ = case(name)
    with jax.enable_x64(True):
        p, x, carry = jax.tree.map(jnp.asarray, (p, x, carry))
        scaled = p | {"w_x": 1000 * p["w_x"], "w_h": 1000 * p["w_h"]}
        found, expected = (recurrence.run_cell(cell, q, 50 * x, carry)[1] for q in (scaled, p))
    np.testing.assert_allclose(found, expected, atol=1e-4)  # not exactly: the variance has 1e-5 added


def test_lstm_bias_sets_the_forget_gate_only():
    bias = np.asarray(initialiser(("lstm_bias", 1.5))(jax.random.key(0), (12,)))
    np.testing.assert_array_equal(bias.reshape(4, 3), [[0.0] * 3, [1.5] * 3, [0.0] * 3, [0.0] * 3])
    for name in CELLS:
        cell = cell_of(name)
        biases = [shape for role, shape in cell.parameters(D, H).values() if role == "bias"]
        if biases == [(4 * H,)]:
            check_bias(cell, ("lstm_bias", 1.5))
        else:
            with pytest.raises(UserError):
                check_bias(cell, ("lstm_bias", 1.5))


def test_eigenvalues_of_the_lru_are_uniform_on_the_ring():
    ring = initialiser(("lru_ring", 0.6, 0.9))(jax.random.key(0), (20_000,))
    phase = initialiser(("lru_phase", 2.0))(jax.random.key(1), (20_000,))
    square, angle = np.exp(-np.exp(np.asarray(ring))) ** 2, np.exp(np.asarray(phase))
    for values, low, high in ((square, 0.36, 0.81), (angle, 0.0, 2.0)):
        assert low - 1e-6 <= values.min()
        assert values.max() <= high + 1e-6
        assert values.mean() == pytest.approx((low + high) / 2, abs=4 * (high - low) / np.sqrt(12 * 20_000))
        assert values.std() == pytest.approx((high - low) / np.sqrt(12), rel=0.02)


@pytest.mark.parametrize("name", [name for name in CELLS if isinstance(cell_of(name), StepCell)])
def test_step_cells_read_each_matrix_once(name):
    """The fast gradient relies on it."""
    cell, p, x, carry, _ = case(name)
    names = []

    def trace(p, x, carry):
        step, z, weights, vectors = recurrence.prepare_loop(cell, p, x, carry)

        def product(matrix, u):
            names.append(matrix)
            return u @ weights[matrix]

        return step(product, z[0], carry, **vectors), weights

    _, weights = jax.eval_shape(trace, *jax.tree.map(lambda leaf: leaf.astype(np.float32), (p, x, carry)))
    assert sorted(names) == sorted(weights)
