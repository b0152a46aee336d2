"""One recurrent layer: its parameters, the noise on and inside its time loop, and its run over a window."""

import flax.linen as nn
import jax
import ml_collections

from lm.cells import recurrence
from lm.cells.kinds import Cell
from lm.errors import UserError
from lm.model.dropout import Noise, active, drop_weights, time_mask, window_mask, zoneout_mask
from lm.model.initialisers import initialiser

Array = jax.Array

# The field of the state that each zoneout acts on.
ZONEOUT_FIELDS = {"memory": "c", "output": "h"}


class RecurrentLayer(nn.Module):
    """One layer's parameters, drawn by role, and its run over a window.

    index: from 0 at the input; keys the layer's noise
    zoneout: see LanguageModel
    """

    cell: Cell
    inputs: int
    units: int
    init: ml_collections.FrozenConfigDict
    index: int = 0
    zoneout: tuple[tuple[str, float], ...] = ()

    @nn.compact
    def __call__(self, x: Array, carry, noise: Noise | None = None) -> tuple:
        """x [T, B, D] floats or [T, B] one-hot ids, carry -> (carry, h [T, B, H])."""
        roles = self.cell.parameters(self.inputs, self.units)
        parameters = {
            name: self.param(name, initialiser(self.init[role]), shape) for name, (role, shape) in roles.items()
        }
        if noise is None:
            inside = expected_noise(self.zoneout)
        else:
            parameters = drop_weights(noise, parameters, recurrent_matrices(roles), self.index)
            inside = drawn_noise(noise, carry, x.shape[0], self.units, self.index)
        return recurrence.run_cell(self.cell, parameters, x, carry, *([] if inside is None else [inside]))


def recurrent_matrices(roles: dict) -> tuple[str, ...]:
    """Names of the parameters that weight_drop drops: those of the role `recurrent`."""
    return tuple(name for name, (role, _) in roles.items() if role == "recurrent")


def expected_noise(zoneout: tuple[tuple[str, float], ...]):
    """What stands in the time loop for zoneout's randomness in evaluation: its rates; None where there are none."""
    fields = {ZONEOUT_FIELDS[name]: rate for name, rate in zoneout}
    return recurrence.RecurrentNoise(zoneout=fields) if fields else None


def drawn_noise(noise: Noise, carry, steps: int, units: int, layer: int):
    """The RecurrentNoise of one layer over a window of T = steps; None where no site inside the time loop is active.

    carry: the layer's state, fields [B, ...]
    """
    batch, dtype = carry[0].shape[0], carry[0].dtype
    masks = {}
    if active(noise, "hidden"):
        masks["hidden"] = window_mask(noise, "hidden", carry.h.shape, layer, dtype)
    if active(noise, "recurrent"):
        masks["update"] = time_mask(noise, "recurrent", (steps, batch, units), layer, dtype)
    if active(noise, "carried"):
        masks["carried"] = time_mask(noise, "carried", (steps, *carry.h.shape), layer, dtype)
    if noise.zoneout:
        fields = {ZONEOUT_FIELDS[name]: name for name in noise.zoneout}
        masks["zoneout"] = {
            field: zoneout_mask(noise, name, (steps, *getattr(carry, field).shape), layer, dtype)
            for field, name in fields.items()
        }
    return recurrence.RecurrentNoise(**masks) if masks else None


def check_noise(config: ml_collections.ConfigDict, cell: Cell):
    """Raises UserError for noise that the config asks for and the cell has no place for."""
    fields, matrices = cell.carry._fields, recurrent_matrices(cell.parameters(1, 1))
    keep, zoneout = config.keep_prob, config.zoneout
    for key, used, possible, missing in (
        ("zoneout.memory", zoneout.memory > 0, "c" in fields, "memory c in its state"),
        ("zoneout.output", zoneout.output > 0, "h" in fields, "output h in its state"),
        ("keep_prob.carried", keep.carried < 1, "h" in fields, "output h in its state"),
        ("keep_prob.weight_drop", keep.weight_drop < 1, matrices, "recurrent matrix"),
        ("keep_prob.hidden", keep.hidden < 1, "hidden" in cell.masks, "product with h"),
        ("keep_prob.recurrent", keep.recurrent < 1, "update" in cell.masks, "update of a memory"),
    ):
        if used and not possible:
            raise UserError(f"config.{key} does not fit config.model.cell={config.model.cell}, which has no {missing}")
