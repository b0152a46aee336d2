"""The LSTM and its kin. Shapes and conventions: kinds.py. In equations, z = x W_x + h W_h + b."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lm.cells.kinds import Array, LSTMCarry, Parameters, PointwiseCell, StepCell, masked, squash


def lstm(z_x: Array, z_h: Array, carry: LSTMCarry, vectors: dict, update: Array | None = None) -> LSTMCarry:
    """LSTM without peepholes, all gates from one fused product.

        i = sigmoid(z_i)    f = sigmoid(z_f)    g = tanh(z_g)    o = sigmoid(z_o)
        c' = f * c + i * g
        h' = o * tanh(c')

    Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000; as printed in Zaremba et al. 2014,
    section 3; the lecture's gen 2. Gates i, f, g, o; one bias.
    """
    del vectors
    i, f, g, o = squash(z_x + z_h, "ssts")
    c = f * carry.c + i * masked(update, g)
    return LSTMCarry(c, o * jnp.tanh(c))


LSTM_GATES = ("i", "f", "g", "o")


def lstm_unfused(product, x: Array, carry: LSTMCarry, vectors: dict, hidden=None, update=None) -> LSTMCarry:
    """The LSTM as assignment 6 prints it: eight separate products and four biases.

        i = sigmoid(x W_xi + h W_hi + b_i)    f = sigmoid(x W_xf + h W_hf + b_f)
        g = tanh   (x W_xg + h W_hg + b_g)    o = sigmoid(x W_xo + h W_ho + b_o)
        c' = f * c + i * g
        h' = o * tanh(c')

    The same function as `lstm`; `fuse_lstm` maps its parameters to those of `lstm`.
    """
    h = masked(hidden, carry.h)
    z = {gate: product(f"w_x{gate}", x) + product(f"w_h{gate}", h) + vectors[f"b_{gate}"][None] for gate in LSTM_GATES}
    i, f, o = (jax.nn.sigmoid(z[gate]) for gate in "ifo")
    c = f * carry.c + i * masked(update, jnp.tanh(z["g"]))
    return LSTMCarry(c, o * jnp.tanh(c))


def lstm_unfused_parameters(inputs: int, units: int) -> Parameters:
    """Shapes of `lstm_unfused`: W_x* [D, H], W_h* [H, H], b_* [H] for each of the four gates."""
    shapes = {f"w_x{gate}": ("input", (inputs, units)) for gate in LSTM_GATES}
    shapes |= {f"w_h{gate}": ("recurrent", (units, units)) for gate in LSTM_GATES}
    return shapes | {f"b_{gate}": ("bias", (units,)) for gate in LSTM_GATES}


def fuse_lstm(parameters: dict) -> dict:
    """Parameters of `lstm_unfused` -> the same function's parameters for `lstm`: w_x [D, 4H], w_h [H, 4H], b [4H]."""
    return {
        name: jnp.concatenate([parameters[f"{name}{joint}{gate}"] for gate in LSTM_GATES], axis=-1)
        for name, joint in (("w_x", ""), ("w_h", ""), ("b", "_"))
    }


def lstm_1997(product, z_x: Array, carry: LSTMCarry, vectors: dict, hidden=None, update=None) -> LSTMCarry:
    """The first LSTM as the lecture on recurrent networks prints it (gen 1); its s is the carry's c.

        i, f, o = sigmoid(x W_x + c W_h + b)
        g = tanh(x W_x + (o * c) W_g + b)
        c' = f * c + i * g
        h' = tanh(c')

    No gate stands between memory and output: o gates what the candidate reads. (Hochreiter & Schmidhuber 1997 had no
    f, and let the gates read the gated output too.) The lecture names no output; the squashing is that of 1997, since
    nothing bounds c but f. Expect little where states are carried without end: c of some units runs away, and the
    gates that read it saturate; gen 2, `lstm`, does not let them. The mask `hidden` multiplies c where products read
    it. W_x [D, 4H] and b [4H] in the order i, f, g, o; W_h [H, 3H] in the order i, f, o; W_g [H, H].
    """
    del vectors
    z_i, z_f, z_g, z_o = jnp.split(z_x, 4, axis=-1)
    read = masked(hidden, carry.c)
    i, f, o = squash(jnp.concatenate([z_i, z_f, z_o], axis=-1) + product("w_h", read), "sss")
    g = jnp.tanh(z_g + product("w_g", o * read))
    c = f * carry.c + i * masked(update, g)
    return LSTMCarry(c, jnp.tanh(c))


def lstm_1997_parameters(inputs: int, units: int) -> Parameters:
    """Shapes of `lstm_1997`."""
    return {
        "w_x": ("input", (inputs, 4 * units)),
        "w_h": ("recurrent", (units, 3 * units)),
        "w_g": ("recurrent", (units, units)),
        "b": ("bias", (4 * units,)),
    }


def lstm_peephole(z_x: Array, z_h: Array, carry: LSTMCarry, vectors: dict, update: Array | None = None) -> LSTMCarry:
    """LSTM whose gates see the memory through one weight per unit, p_i, p_f and p_o [H].

        i = sigmoid(z_i + p_i * c)    f = sigmoid(z_f + p_f * c)    g = tanh(z_g)
        c' = f * c + i * g
        o = sigmoid(z_o + p_o * c')
        h' = o * tanh(c')

    Gers & Schmidhuber 2000; as printed in Graves 2013, eqs. 7-11. Gates i, f, g, o; one bias.
    """
    z_i, z_f, z_g, z_o = jnp.split(z_x + z_h, 4, axis=-1)
    p = {name: vector[None] for name, vector in vectors.items()}
    i = jax.nn.sigmoid(z_i + p["p_i"] * carry.c)
    f = jax.nn.sigmoid(z_f + p["p_f"] * carry.c)
    c = f * carry.c + i * masked(update, jnp.tanh(z_g))
    o = jax.nn.sigmoid(z_o + p["p_o"] * c)
    return LSTMCarry(c, o * jnp.tanh(c))


def lstm_coupled(z_x: Array, z_h: Array, carry: LSTMCarry, vectors: dict, update: Array | None = None) -> LSTMCarry:
    """LSTM that forgets exactly what it overwrites: f = 1 - i.

        i = sigmoid(z_i)    g = tanh(z_g)    o = sigmoid(z_o)
        c' = (1 - i) * c + i * g
        h' = o * tanh(c')

    Greff et al. 2017 (variant CIFG). Gates i, g, o; one bias.
    """
    del vectors
    i, g, o = squash(z_x + z_h, "sts")
    c = (1 - i) * carry.c + i * masked(update, g)
    return LSTMCarry(c, o * jnp.tanh(c))


def lstm_projection(product, z_x: Array, carry: LSTMCarry, vectors: dict, hidden=None, update=None) -> LSTMCarry:
    """LSTMP: the output is a projection of P < H numbers, which is also what the recurrent product reads.

        i, f, g, o as `lstm`, from z = x W_x + h W_h + b
        c' = f * c + i * g                     [B, H]
        h' = (o * tanh(c')) W_p                [B, P]

    Sak et al. 2014, without its peepholes and non-recurrent projection: `proj_size` of torch.nn.LSTM.
    W_x [D, 4H], W_h [P, 4H], W_p [H, P]; P is config.model.projection. Gates i, f, g, o; one bias.
    """
    del vectors
    i, f, g, o = squash(z_x + product("w_h", masked(hidden, carry.h)), "ssts")
    c = f * carry.c + i * masked(update, g)
    return LSTMCarry(c, product("w_p", o * jnp.tanh(c)))


def lstm_projection_parameters(projection: int, inputs: int, units: int) -> Parameters:
    """Shapes of `lstm_projection`."""
    return {
        "w_x": ("input", (inputs, 4 * units)),
        "w_h": ("recurrent", (projection, 4 * units)),
        "w_p": ("recurrent", (units, projection)),
        "b": ("bias", (4 * units,)),
    }


def lstm_book_gradient(product, z_x: Array, carry: LSTMCarry, vectors: dict, hidden=None, update=None) -> LSTMCarry:
    """`lstm` with the gradient of Grokking Deep Learning, ch. 14 (Trask 2019), on purpose.

        i, f, g = sigmoid, sigmoid, tanh (x W_x + stop(h) W_h + b)      o = sigmoid(x W_x + h W_o + b)
        c' = f * stop(c) + i * g
        h' = o * tanh(c')                                               stop: identity without gradient

    The book's autograd drops every gradient that reaches a tensor a second time. In effect its h carries gradient
    into the output gate only (the weights of the other gates still learn), and its c none through the forget gate.
    Values are those of `lstm` with w_h = [W_h, W_o]. W_x [D, 4H] and b [4H] in the order i, f, g, o; W_h [H, 3H] in
    the order i, f, g; W_o [H, H]. The book biases its input products only, which is what one bias is.
    """
    del vectors
    stop, h = jax.lax.stop_gradient, masked(hidden, carry.h)
    z_h = jnp.concatenate([product("w_h", stop(h)), product("w_o", h)], axis=-1)
    i, f, g, o = squash(z_x + z_h, "ssts")
    c = f * stop(carry.c) + i * masked(update, g)
    return LSTMCarry(c, o * jnp.tanh(c))


def lstm_book_parameters(inputs: int, units: int) -> Parameters:
    """Shapes of `lstm_book_gradient`."""
    return {
        "w_x": ("input", (inputs, 4 * units)),
        "w_h": ("recurrent", (units, 3 * units)),
        "w_o": ("recurrent", (units, units)),
        "b": ("bias", (4 * units,)),
    }


class StabilisedCarry(NamedTuple):
    """The state of an sLSTM: memory and normaliser in units of exp(m), stabiliser m, output h, each [B, H].

    The unit changes from step to step, so an old scaled_c beside a new m means something else. It is not called c, and
    zoneout of a memory has no place here.
    """

    scaled_c: Array
    scaled_n: Array
    m: Array
    h: Array


def slstm(
    z_x: Array, z_h: Array, carry: StabilisedCarry, vectors: dict, update: Array | None = None
) -> StabilisedCarry:
    """sLSTM: an exponential input gate, and a normaliser n that counts what it let in.

        g = tanh(z_g)    o = sigmoid(z_o)    log i = z_i    log f = log sigmoid(z_f)
        m' = max(log f + m, log i), or log i while n = 0    i' = exp(log i - m')    f' = exp(log f + m - m')
        c' = f' * c + i' * g
        n' = f' * n + i'
        h' = o * c' / n'

    Beck et al. 2024 (xLSTM), eqs. 8-17, with the sigmoid of its two forget gates and one head: a full W_h. The
    stabiliser m keeps exponents at or below 0 and cancels from h'. Gates i, f, g, o; one bias.
    """
    del vectors
    log_i, z_f, z_g, z_o = jnp.split(z_x + z_h, 4, axis=-1)
    log_f = jax.nn.log_sigmoid(z_f)
    empty = carry.scaled_n == 0
    m = jnp.where(empty, log_i, jnp.maximum(log_f + carry.m, log_i))
    i = jnp.exp(log_i - m)
    f = jnp.where(empty, 0.0, jnp.exp(jnp.where(empty, 0.0, log_f + carry.m - m)))
    c = f * carry.scaled_c + i * masked(update, jnp.tanh(z_g))
    n = f * carry.scaled_n + i
    return StabilisedCarry(c, n, m, jax.nn.sigmoid(z_o) * c / n)


def mogrifier(rounds, product, x: Array, carry: LSTMCarry, vectors: dict, hidden=None, update=None) -> LSTMCarry:
    """An `lstm` whose input and state first gate each other in r rounds; i counts them from 1.

        x <- 2 sigmoid(h W_i) * x      for odd i
        h <- 2 sigmoid(x W_i) * h      for even i
        then i, f, g, o, c', h' as `lstm`, from z = x W_x + h W_h + b

    Melis et al. 2020, without its low-rank factors. W_i is w_mutual_i: [H, D] for odd i, [D, H] for even i; `rounds`
    is config.model.mogrifier_rounds. Gates i, f, g, o; one bias.
    """
    h = masked(hidden, carry.h)
    for i in range(1, rounds + 1):
        if i % 2:
            x = 2 * jax.nn.sigmoid(product(f"w_mutual_{i}", h)) * x
        else:
            h = 2 * jax.nn.sigmoid(product(f"w_mutual_{i}", x)) * h
    return lstm(product("w_x", x) + vectors["b"][None], product("w_h", h), carry, {}, update)


def mogrifier_parameters(rounds: int, inputs: int, units: int) -> Parameters:
    """Shapes of `mogrifier`."""
    mutual = {
        f"w_mutual_{i}": ("recurrent", (units, inputs)) if i % 2 else ("input", (inputs, units))
        for i in range(1, rounds + 1)
    }
    return mutual | {
        "w_x": ("input", (inputs, 4 * units)),
        "w_h": ("recurrent", (units, 4 * units)),
        "b": ("bias", (4 * units,)),
    }


@functools.cache
def lstm_projection_cell(projection: int) -> StepCell:
    """`lstm_projection` with outputs of size P = projection."""
    parameters = functools.partial(lstm_projection_parameters, projection)
    return StepCell(LSTMCarry, lstm_projection, parameters, output=projection)


@functools.cache
def mogrifier_cell(rounds: int) -> StepCell:
    """`mogrifier` with this many rounds."""
    parameters = functools.partial(mogrifier_parameters, rounds)
    return StepCell(LSTMCarry, functools.partial(mogrifier, rounds), parameters, projected=False)


PEEPHOLES = (("p_i", "vector"), ("p_f", "vector"), ("p_o", "vector"))

LSTM_CELLS = {
    "lstm": PointwiseCell(LSTMCarry, 4, lstm),
    "lstm_unfused": StepCell(LSTMCarry, lstm_unfused, lstm_unfused_parameters, projected=False),
    "lstm_1997": StepCell(LSTMCarry, lstm_1997, lstm_1997_parameters),
    "lstm_peephole": PointwiseCell(LSTMCarry, 4, lstm_peephole, PEEPHOLES),
    "lstm_coupled": PointwiseCell(LSTMCarry, 3, lstm_coupled),
    "lstm_book_gradient": StepCell(LSTMCarry, lstm_book_gradient, lstm_book_parameters),
    "slstm": PointwiseCell(StabilisedCarry, 4, slstm),
}
