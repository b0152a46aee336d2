"""Rows of different lengths in one window: the carry of each row stops at its length."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from lm.cells.kinds import zero_carry
from lm.cells.table import make_cell
from lm.model.layer import RecurrentLayer, mask_of
from tests.helpers import tiny
from tests.helpers.few import EACH_CELL
from tests.helpers.quick import compiled

T, D, H, P = 4, 4, 3, 2
LENGTHS = (4, 1, 0)


def layer_of(name):
    config = tiny.config(model__cell=name, model__projection=P)
    return RecurrentLayer(make_cell(config.model), D, H, ml_collections.FrozenConfigDict(config.init))


def case(layer, rows):
    """(parameters, x [T, B, D], carry, weights of the outputs, weights of the carry), drawn around 0."""
    cell, rng = layer.cell, np.random.default_rng(0)
    carry = {name: rng.normal(size=field.shape) for name, field in zero_carry(cell, rows, H)._asdict().items()}
    if "scaled_n" in carry:  # the sLSTM divides by it
        carry["scaled_n"] = np.abs(carry["scaled_n"]) + 0.5
    parameters = {name: rng.normal(0, 0.8, shape) for name, (_, shape) in cell.parameters(D, H).items()}
    drawn = parameters, rng.normal(size=(T, rows, D)), cell.carry(**carry), rng.normal(size=(T, rows, 1))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), drawn)


@pytest.mark.parametrize("name", EACH_CELL)
def test_carry_outputs_and_gradients_are_those_of_each_row_alone(name):
    layer = layer_of(name)
    parameters, x, carry, weights = case(layer, len(LENGTHS))
    lengths = jnp.array(LENGTHS)
    inside = mask_of(lengths, T)[..., None]

    def value(parameters, x, carry, weights, lengths=None):
        """A number that depends on the whole carry and on all outputs whose weight is not 0."""
        run = layer.apply({"params": parameters}, x, carry, lengths=lengths) if len(x) else (carry, weights)
        of_carry = sum(jnp.sum((number + 1) * jnp.sin(field)) for number, field in enumerate(run[0]))
        return jnp.sum(weights * run[1] ** 2) + of_carry, run

    run = compiled(jax.value_and_grad(value, argnums=(0, 1, 2), has_aux=True))
    (_, (after, h)), found = run(parameters, x, carry, inside * weights, lengths)
    whole = jax.tree.map(np.zeros_like, found)
    for row, length in enumerate(LENGTHS):
        one = (slice(None, length), slice(row, row + 1))
        start = jax.tree.map(lambda leaf, row=row: leaf[row : row + 1], carry)
        (_, (end, outputs)), gradients = run(parameters, x[one], start, weights[one])
        np.testing.assert_allclose(h[:length, row], outputs[:, 0] if length else h[:0, row], atol=1e-5)
        jax.tree.map(lambda a, b, row=row: np.testing.assert_allclose(a[row], b[0], atol=1e-5), after, end)
        for total, each in zip(jax.tree.leaves(whole[0]), jax.tree.leaves(gradients[0]), strict=True):
            total += np.asarray(each)
        whole[1][one] = gradients[1]
        for total, each in zip(whole[2], gradients[2], strict=True):
            total[row] = each[0]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, whole)
