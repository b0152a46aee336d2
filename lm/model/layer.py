"""A recurrent layer: creates its parameters, draws its noise, and runs its cell over a window."""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from ml_collections import ConfigDict, FrozenConfigDict

from lm.cells.kinds import Carry, Cell, Parameters
from lm.cells.recurrence import Inputs, RecurrentNoise, run_cell
from lm.cells.table import check_bias, check_roles
from lm.errors import UserError
from lm.model.dropout import Noise, active, drop_weights, time_mask, window_mask, zoneout_mask
from lm.model.initialisers import initialiser

# The field of the carry that each zoneout acts on.
ZONEOUT_FIELDS = {"memory": "c", "output": "h"}


class RecurrentLayer(nn.Module):
    """Creates one layer's parameters and runs its cell over a window.

    init_config: config.init, the initialiser of each role
    index: number of the layer, from 0 at the input; selects its noise
    zoneout: see LanguageModel
    """

    cell: Cell
    inputs: int
    units: int
    init_config: FrozenConfigDict
    index: int = 0
    zoneout: tuple[tuple[str, float], ...] = ()

    @nn.compact
    def __call__(
        self,
        x: Inputs,
        carry: Carry,
        noise: Noise | None = None,
        reset: Float[Array, "T B 1"] | None = None,
        lengths: Int[Array, " B"] | None = None,
    ) -> tuple[Carry, Float[Array, "T B P"]]:
        """Returns (carry after the window, outputs h). Integers in x are indices of one-hot vectors.

        reset: 0 at steps that start from the zero state, else 1
        lengths: steps of each row (None: T). After its last one, a row keeps its carry; its outputs are meaningless.
        """
        roles = self.cell.parameters(self.inputs, self.units)
        parameters = {
            name: self.param(name, initialiser(self.init_config[role]), shape) for name, (role, shape) in roles.items()
        }
        if noise is None:
            drawn = RecurrentNoise(zoneout={ZONEOUT_FIELDS[name]: rate for name, rate in self.zoneout})  # expectation
        else:
            parameters = drop_weights(noise, parameters, recurrent_matrices(roles), self.index)
            drawn = drawn_noise(noise, carry, x.shape[0], self.units, self.index)
        if lengths is not None:
            drawn = drawn._replace(inside=mask_of(lengths, x.shape[0])[..., None])
        return run_cell(self.cell, parameters, x, carry, drawn._replace(reset=reset))


def mask_of(lengths: Int[Array, " B"], steps: int) -> Bool[Array, "T B"]:
    """True at tokens, False at padding."""
    return jnp.arange(steps)[:, None] < lengths[None]


def recurrent_matrices(roles: Parameters) -> tuple[str, ...]:
    """Names of the parameters with the role `recurrent`, whose weights weight_drop drops."""
    return tuple(name for name, (role, _) in roles.items() if role == "recurrent")


def drawn_noise(noise: Noise, carry: Carry, steps: int, units: int, layer: int) -> RecurrentNoise:
    """Draws the noise for one layer's time loop over a window of T = steps. carry: the layer's state, fields [B, *]."""
    batch, dtype = carry[0].shape[0], carry[0].dtype
    masks = {}
    if active(noise, "hidden"):
        masks["hidden"] = window_mask(noise, "hidden", carry.h.shape, layer, dtype)
    if active(noise, "recurrent"):
        masks["update"] = time_mask(noise, "recurrent", (steps, batch, units), layer, dtype)
    if active(noise, "carried"):
        masks["carried"] = time_mask(noise, "carried", (steps, *carry.h.shape), layer, dtype)
    zoneout = {}
    for name in noise.zoneout:
        field = ZONEOUT_FIELDS[name]
        zoneout[field] = zoneout_mask(noise, name, (steps, *getattr(carry, field).shape), layer, dtype)
    return RecurrentNoise(**masks, zoneout=zoneout)


def check_cell(config: ConfigDict, cell: Cell):
    """Raises UserError if the cell's equations cannot apply the noise of the config or its initialisers."""
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
    check_roles(cell, config.init)
    check_bias(cell, config.init.bias)


def check_tied_size(model: ConfigDict, cell: Cell):
    """Raises UserError if a softmax that reads embeddings (output=tied) gets vectors of another size."""
    size = cell.output_size(model.hidden[-1])
    if model.output == "tied" and model.embedding_size != size:
        raise UserError(
            f"config.model.output=tied needs config.model.embedding_size={size}, the size of the last layer's output, "
            f"not {model.embedding_size}"
        )


def check_values(model: ConfigDict, needed: Mapping[str, tuple[str, ...]], where: str):
    """Raises UserError unless each key of config.model in `needed` has one of its values."""
    for key, allowed in needed.items():
        if model[key] not in allowed:
            raise UserError(f"config.model.{key} must be {' or '.join(allowed)} with {where}, not {model[key]}")
