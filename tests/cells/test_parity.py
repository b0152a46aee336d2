"""Parity of the recurrent layers with other implementations: torch.nn, flax.linen and float64 NumPy.

Compares stacks of 1 to 3 layers over windows of T steps and batches of B rows: outputs, final states, and gradients
with respect to parameters, inputs and initial states. One program per (cell, dtype, T, B) serves all three depths: it
computes the three-layer stack, and a traced vector selects the layer whose outputs and state the objective reads.

torch has two biases per layer. Ours is their sum, except in the candidate of a GRU, which has two here too.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lm.cells import recurrence
from lm.cells.table import CELLS
from tests.helpers import cell_references
from tests.helpers.quick import compiled

D, H, LAYERS = 3, 3, 3
SHAPES = [(T, B) for T in (1, 2, 17) for B in (1, 5)]
FEW_SHAPES = [pytest.param(*shape, marks=() if shape == (17, 5) else pytest.mark.slow) for shape in SHAPES]
KINDS = ("elman_tanh", "elman_relu", "lstm", "gru_reset_after")


def case(kind, T, B):
    """({parameters: [by layer], x [T, B, D], carry: [by layer]}, weights [T, B, H] of the outputs) in float64."""
    rng, cell = np.random.default_rng(100 * T + B), CELLS[kind]
    parameters = [
        {name: rng.normal(0, 0.6, shape) for name, (_, shape) in cell.parameters(D if layer == 0 else H, H).items()}
        for layer in range(LAYERS)
    ]
    carry = [{name: rng.normal(0, 0.6, (B, H)) for name in cell.carry._fields} for _ in range(LAYERS)]
    arguments = {"parameters": parameters, "x": rng.normal(size=(T, B, D)), "carry": carry}
    return arguments, rng.normal(size=(T, B, H))


def first(arguments, depth):
    """The arguments of the lowest `depth` layers."""
    return {**arguments, "parameters": arguments["parameters"][:depth], "carry": arguments["carry"][:depth]}


def objective(outputs, carries, weights):
    """A number that depends on all outputs of a layer and on the final states of all layers."""
    return (weights * outputs).sum() + sum((v * v).sum() for carry in carries for v in carry.values())


# --- Ours -----------------------------------------------------------------------------------------------------------


def our_layer(kind, p, x, carry):
    carry, h = recurrence.run_cell(CELLS[kind], p, x, CELLS[kind].carry(**carry))
    return carry._asdict(), h


@functools.cache
def program(layer, kind):
    """Compiled: ((_, (outputs by layer, final states by layer)), gradients) of a stack of layers."""

    def value(arguments, weights, chosen):
        total, x, finals, outputs = 0.0, arguments["x"], [], []
        for index, (p, carry) in enumerate(zip(arguments["parameters"], arguments["carry"], strict=True)):
            carry, x = layer(kind, p, x, carry)
            finals.append(carry)
            outputs.append(x)
            total += chosen[index] * objective(x, finals, weights)
        return total, (outputs, finals)

    return compiled(jax.value_and_grad(value, has_aux=True))


def stack(layer, kind, dtype, arguments, weights, depth):
    """(outputs [T, B, H] of layer `depth`, final states by layer, gradients of their objective)."""
    chosen = np.eye(LAYERS)[depth - 1]
    with jax.enable_x64(dtype == np.float64):
        inputs = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (arguments, weights, chosen))
        (_, (outputs, finals)), gradients = program(layer, kind)(*inputs)
    found = outputs[depth - 1], finals[:depth], first(gradients, depth)
    above = {"parameters": gradients["parameters"][depth:], "carry": gradients["carry"][depth:]}
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(above))
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), found)


ours = functools.partial(stack, our_layer)


def close(found, expected, tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), found, expected)


def close_to_size(found, expected, tolerance):
    """Each array to tolerance x its largest entry, or x 1 if that is smaller.

    An entry of a gradient is a sum of up to T * B terms. Rounding is relative to their size, not to that of their sum.
    """

    def compare(a, b):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max()))

    jax.tree.map(compare, found, expected)


def close_stacks(found, expected, tolerance):
    """Compares outputs and final states entry by entry, gradients by size."""
    close(found[:2], expected[:2], tolerance)
    close_to_size(found[2], expected[2], tolerance)


# --- float64 NumPy --------------------------------------------------------------------------------------------------


def numpy_stack(kind, arguments):
    """(outputs of the last layer, final states by layer), step by step."""
    x, finals = arguments["x"], []
    for p, carry in zip(arguments["parameters"], arguments["carry"], strict=True):
        carry, x = cell_references.loop(cell_references.STEPS[kind], p, x, carry)
        finals.append(carry)
    return x, finals


@pytest.mark.parametrize(("T", "B"), FEW_SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_matches_float64_numpy_to_1e10(kind, T, B):
    """Outputs, final states, and derivatives along random directions, by complex steps, at every depth.

    Each of the two directions changes all arguments at once. test_cells.py checks single derivatives.
    """
    arguments, weights = case(kind, T, B)
    rng = np.random.default_rng(0)
    for depth in range(1, LAYERS + 1):
        outputs, finals, gradients = ours(kind, np.float64, arguments, weights, depth)
        below = first(arguments, depth)
        close((outputs, finals), numpy_stack(kind, below), 1e-10)
        for _ in range(2):
            direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), below)
            moved = jax.tree.map(lambda leaf, d: leaf + 1e-30j * d, below, direction)
            derivative = objective(*numpy_stack(kind, moved), weights).imag / 1e-30
            along = jax.tree.map(lambda g, d: (g * d).sum(), gradients, direction)
            assert sum(jax.tree.leaves(along)) == pytest.approx(derivative, rel=1e-10, abs=1e-10)


# --- torch ----------------------------------------------------------------------------------------------------------


def torch_names(kind, p, layer):
    """Our parameters of a layer under torch's names and transposed: its gates are rows, in the same order."""
    split = {"w_x": f"weight_ih_l{layer}", "w_h": f"weight_hh_l{layer}", "b": f"bias_ih_l{layer}"}
    named = {theirs: p[name].T for name, theirs in split.items()}
    second = np.zeros_like(p["b"])
    if kind == "gru_reset_after":
        second[2 * H :] = p["b_h"]
    return named | {f"bias_hh_l{layer}": second}


def torch_gradients(kind, module, layer):
    """Gradients of a layer's parameters under our names. Both of torch's biases have the gradient of our one."""
    names = {"w_x": "weight_ih", "w_h": "weight_hh", "b": "bias_ih"}
    found = {name: getattr(module, f"{theirs}_l{layer}").grad.double().numpy().T for name, theirs in names.items()}
    if kind == "gru_reset_after":
        found["b_h"] = getattr(module, f"bias_hh_l{layer}").grad.double().numpy()[2 * H :]
    return found


def torch_stack(torch, kind, arguments, weights, dtype):
    """The result of `ours`, computed by torch.nn."""
    module = {
        "elman_tanh": torch.nn.RNN,
        "elman_relu": functools.partial(torch.nn.RNN, nonlinearity="relu"),
        "lstm": torch.nn.LSTM,
        "gru_reset_after": torch.nn.GRU,
    }[kind]
    depth = len(arguments["parameters"])
    module = module(D, H, num_layers=depth).to(dtype)
    named = {}
    for layer, p in enumerate(arguments["parameters"]):
        named |= torch_names(kind, p, layer)
    module.load_state_dict({name: torch.tensor(value, dtype=dtype) for name, value in named.items()})
    fields = sorted(arguments["carry"][0], reverse=True)  # (h, c)
    start = {
        name: torch.tensor(np.stack([c[name] for c in arguments["carry"]]), dtype=dtype, requires_grad=True)
        for name in fields
    }
    x = torch.tensor(arguments["x"], dtype=dtype, requires_grad=True)
    outputs, final = module(x, tuple(start.values()) if len(fields) == 2 else start["h"])
    final = dict(zip(fields, final if len(fields) == 2 else (final,), strict=True))
    value = (torch.tensor(weights, dtype=dtype) * outputs).sum() + sum((v * v).sum() for v in final.values())
    value.backward()

    def by_layer(states):
        return [{name: v[layer].detach().double().numpy() for name, v in states.items()} for layer in range(depth)]

    gradients = {
        "parameters": [torch_gradients(kind, module, layer) for layer in range(depth)],
        "x": x.grad.double().numpy(),
        "carry": by_layer({name: v.grad for name, v in start.items()}),
    }
    return outputs.detach().double().numpy(), by_layer(final), gradients


@pytest.mark.parametrize(("T", "B"), SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_matches_torch_to_1e5_in_float32_and_1e10_in_float64(kind, T, B):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    arguments, weights = case(kind, T, B)
    for ours_dtype, theirs_dtype, tolerance in ((np.float32, torch.float32, 1e-5), (np.float64, torch.float64, 1e-10)):
        for depth in range(1, LAYERS + 1):
            found = ours(kind, ours_dtype, arguments, weights, depth)
            expected = torch_stack(torch, kind, first(arguments, depth), weights, theirs_dtype)
            close_stacks(found, expected, tolerance)


def test_lstm_projection_matches_torch():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from lm.cells.lstm import lstm_projection_cell

    cell, rng, P, T, B = lstm_projection_cell(2), np.random.default_rng(0), 2, 6, 4
    p = {name: rng.normal(0, 0.6, shape) for name, (_, shape) in cell.parameters(D, H).items()}
    carry = cell.carry(c=rng.normal(size=(B, H)), h=rng.normal(size=(B, P)))
    x = rng.normal(size=(T, B, D))
    with jax.enable_x64(True):
        after, h = recurrence.run_cell(cell, *jax.tree.map(jnp.asarray, (p, x, carry)))
    module = torch.nn.LSTM(D, H, proj_size=P).double()
    named = {**torch_names("lstm", p, 0), "weight_hr_l0": p["w_p"].T}
    module.load_state_dict({name: torch.tensor(value) for name, value in named.items()})
    start = tuple(torch.tensor(v)[None] for v in (carry.h, carry.c))
    outputs, (final_h, final_c) = module(torch.tensor(x), start)
    expected = outputs, final_h[0], final_c[0]
    close(tuple(np.asarray(v) for v in (h, after.h, after.c)), tuple(v.detach().numpy() for v in expected), 1e-10)


# --- flax.linen -----------------------------------------------------------------------------------------------------

FLAX_CELLS = {
    "elman_tanh": nn.SimpleCell,
    "elman_relu": functools.partial(nn.SimpleCell, activation_fn=nn.relu),
    "lstm": nn.OptimizedLSTMCell,
    "gru_reset_after": nn.GRUCell,
}


def flax_parameters(kind, p):
    """Our parameters of a layer in flax's form: a dense layer per gate, with the bias where flax has it."""
    if kind in ("elman_tanh", "elman_relu"):
        return {"i": {"kernel": p["w_x"], "bias": p["b"]}, "h": {"kernel": p["w_h"]}}
    names = "ifgo" if kind == "lstm" else "rzn"
    w_x, w_h, b = (jnp.split(p[name], len(names), axis=-1) for name in ("w_x", "w_h", "b"))
    there = {}
    for gate, x, h, bias in zip(names, w_x, w_h, b, strict=True):
        there[f"i{gate}"], there[f"h{gate}"] = {"kernel": x}, {"kernel": h}
        if kind == "lstm":  # its bias belongs to the recurrent product, that of a GRU to the input product
            there[f"h{gate}"]["bias"] = bias
        else:
            there[f"i{gate}"]["bias"] = bias
    if kind == "gru_reset_after":
        there["hn"]["bias"] = p["b_h"]
    return there


def flax_layer(kind, p, x, carry):
    layer = nn.RNN(FLAX_CELLS[kind](H), time_major=True, return_carry=True)
    start = (carry["c"], carry["h"]) if kind == "lstm" else carry["h"]
    final, h = layer.apply({"params": {"cell": flax_parameters(kind, p)}}, x, initial_carry=start)
    return dict(zip("ch", final, strict=True)) if kind == "lstm" else {"h": final}, h


@pytest.mark.parametrize(("T", "B"), FEW_SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_matches_flax_to_1e5_in_float32(kind, T, B):
    arguments, weights = case(kind, T, B)
    for depth in range(1, LAYERS + 1):
        found = ours(kind, np.float32, arguments, weights, depth)
        with jax.numpy_rank_promotion("allow"):  # flax relies on it when it adds biases
            expected = stack(flax_layer, kind, np.float32, arguments, weights, depth)
        close_stacks(found, expected, 1e-5)
