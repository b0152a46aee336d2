"""The LSTM and its variants. Notation and conventions: lm/cells/__init__.py. In equations, z = x w_x + h w_h + b."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from lm.cells.kinds import (
    Gates,
    LSTMCarry,
    Mask,
    OutputMask,
    Product,
    Rows,
    Step,
    StepCell,
    UnprojectedCell,
    Vector,
    masked,
    pointwise,
    squash,
)


def lstm(z_x: Gates, z_h: Gates, carry: LSTMCarry, update: Mask = None) -> Step[LSTMCarry]:
    """LSTM without peepholes; one product computes all gates.

        i = sigmoid(z_i)    f = sigmoid(z_f)    g = tanh(z_g)    o = sigmoid(z_o)
        c' = f * c + i * g
        h' = o * tanh(c')

    Parameters: w_x [D, 4H], w_h [H, 4H], b [4H]. Gates i, f, g, o. One bias; f gets no constant.

    Hochreiter and Schmidhuber (1997). "Long Short-Term Memory". With the forget gate of Gers, Schmidhuber and Cummins
    (2000), "Learning to Forget: Continual Prediction with LSTM", in the form of Zaremba, Sutskever and Vinyals (2014),
    "Recurrent Neural Network Regularization", section 3.
    """
    i, f, g, o = squash(z_x + z_h, "ssts")
    c = f * carry.c + i * masked(update, g)
    return LSTMCarry(c, o * jnp.tanh(c)), {"i": i, "f": f, "g": g, "o": o}


LSTM_GATES = ("i", "f", "g", "o")


def lstm_unfused(
    product: Product, x: Rows, carry: LSTMCarry, hidden: Mask = None, update: Mask = None, **biases: Vector
) -> Step[LSTMCarry]:
    """LSTM with eight separate products and four biases.

        i = sigmoid(x w_xi + h w_hi + b_i)    f = sigmoid(x w_xf + h w_hf + b_f)
        g = tanh   (x w_xg + h w_hg + b_g)    o = sigmoid(x w_xo + h w_ho + b_o)
        c' = f * c + i * g
        h' = o * tanh(c')

    Computes the same function as `lstm`, whose parameters are these, concatenated.
    Parameters, for each gate: w_x* [D, H], w_h* [H, H], b_* [H]. One bias per gate.

    Vanhoucke (2016). "Deep Learning" (Udacity), assignment 6: the notebook 6_lstm.ipynb.
    """
    h = masked(hidden, carry.h)
    z = {gate: product(f"w_x{gate}", x) + product(f"w_h{gate}", h) + biases[f"b_{gate}"][None] for gate in LSTM_GATES}
    i, f, o = (jax.nn.sigmoid(z[gate]) for gate in "ifo")
    g = jnp.tanh(z["g"])
    c = f * carry.c + i * masked(update, g)
    return LSTMCarry(c, o * jnp.tanh(c)), {"i": i, "f": f, "g": g, "o": o}


UNFUSED_SHAPES = (
    *((f"w_x{gate}", "input", "D H") for gate in LSTM_GATES),
    *((f"w_h{gate}", "recurrent", "H H") for gate in LSTM_GATES),
    *((f"b_{gate}", "bias", "H") for gate in LSTM_GATES),
)


def lstm_1997(
    product: Product, z_x: Gates, carry: LSTMCarry, hidden: Mask = None, update: Mask = None
) -> Step[LSTMCarry]:
    """LSTM whose gates read the memory c; the output gate scales the memory that the candidate reads.

        i, f, o = sigmoid(x w_x + c w_h + b)
        g = tanh(x w_x + (o * c) w_g + b)
        c' = f * c + i * g
        h' = tanh(c')

    No gate lies between memory and output. Only f bounds c, and the gates read c: over a long text, the memory of some
    units diverges and saturates them. The gates of `lstm` read h, which is bounded. The mask `hidden` multiplies c.
    Parameters: w_x [D, 4H] and b [4H] in the order i, f, g, o; w_h [H, 3H] in the order i, f, o; w_g [H, H]. One bias.

    Larson, "Machine Learning in Python: Recurrent Neural Networks" (lecture notes), the first of its two LSTMs, with
    s for c. The notes define no output. The tanh here is from Hochreiter and Schmidhuber (1997), "Long Short-Term
    Memory". Their LSTM has no f, and its gates and candidate read the gated output.
    """
    z_i, z_f, z_g, z_o = jnp.split(z_x, 4, axis=-1)
    read = masked(hidden, carry.c)
    i, f, o = squash(jnp.concatenate([z_i, z_f, z_o], axis=-1) + product("w_h", read), "sss")
    g = jnp.tanh(z_g + product("w_g", o * read))
    c = f * carry.c + i * masked(update, g)
    return LSTMCarry(c, jnp.tanh(c)), {"i": i, "f": f, "g": g, "o": o}


LSTM_1997_SHAPES = (
    ("w_x", "input", "D 4H"),
    ("w_h", "recurrent", "H 3H"),
    ("w_g", "recurrent", "H H"),
    ("b", "bias", "4H"),
)


def lstm_peephole(
    z_x: Gates, z_h: Gates, carry: LSTMCarry, p_i: Vector, p_f: Vector, p_o: Vector, update: Mask = None
) -> Step[LSTMCarry]:
    """LSTM whose gates read the memory through peepholes, one weight per unit and gate.

        i = sigmoid(z_i + p_i * c)    f = sigmoid(z_f + p_f * c)    g = tanh(z_g)
        c' = f * c + i * g
        o = sigmoid(z_o + p_o * c')
        h' = o * tanh(c')

    Parameters: w_x [D, 4H], w_h [H, 4H], b [4H]; p_i, p_f, p_o [H]. Gates i, f, g, o. One bias.

    Gers and Schmidhuber (2000). "Recurrent Nets that Time and Count". In the form of Graves (2013), "Generating
    Sequences With Recurrent Neural Networks", equations 7 to 11.
    """
    z_i, z_f, z_g, z_o = jnp.split(z_x + z_h, 4, axis=-1)
    i = jax.nn.sigmoid(z_i + p_i[None] * carry.c)
    f = jax.nn.sigmoid(z_f + p_f[None] * carry.c)
    g = jnp.tanh(z_g)
    c = f * carry.c + i * masked(update, g)
    o = jax.nn.sigmoid(z_o + p_o[None] * c)
    return LSTMCarry(c, o * jnp.tanh(c)), {"i": i, "f": f, "g": g, "o": o}


PEEPHOLES = (("p_i", "vector"), ("p_f", "vector"), ("p_o", "vector"))


def lstm_coupled(z_x: Gates, z_h: Gates, carry: LSTMCarry, update: Mask = None) -> Step[LSTMCarry]:
    """LSTM that forgets exactly as much as it lets in: f = 1 - i.

        i = sigmoid(z_i)    g = tanh(z_g)    o = sigmoid(z_o)
        c' = (1 - i) * c + i * g
        h' = o * tanh(c')

    Parameters: w_x [D, 3H], w_h [H, 3H], b [3H]. Gates i, g, o. One bias.

    Greff, Srivastava, Koutník, Steunebrink and Schmidhuber (2017). "LSTM: A Search Space Odyssey", variant CIFG,
    without peepholes.
    """
    i, g, o = squash(z_x + z_h, "sts")
    c = (1 - i) * carry.c + i * masked(update, g)
    return LSTMCarry(c, o * jnp.tanh(c)), {"i": i, "g": g, "o": o}


def lstm_projection(
    product: Product, z_x: Gates, carry: LSTMCarry, hidden: OutputMask = None, update: Mask = None
) -> Step[LSTMCarry]:
    """LSTM whose output h is projected to P < H numbers (LSTMP).

        i, f, g, o as in `lstm`, from z = x w_x + h w_h + b
        c' = f * c + i * g                     [B, H]
        h' = (o * tanh(c')) w_p                [B, P]

    P is config.model.projection. torch.nn.LSTM calls it proj_size.
    Parameters: w_x [D, 4H], w_h [P, 4H], w_p [H, P], b [4H]. Gates i, f, g, o. One bias.

    Sak, Senior and Beaufays (2014). "Long Short-Term Memory Recurrent Neural Network Architectures for Large Scale
    Acoustic Modeling". Here without the paper's peepholes and non-recurrent projection.
    """
    i, f, g, o = squash(z_x + product("w_h", masked(hidden, carry.h)), "ssts")
    c = f * carry.c + i * masked(update, g)
    return LSTMCarry(c, product("w_p", o * jnp.tanh(c))), {"i": i, "f": f, "g": g, "o": o}


PROJECTION_SHAPES = (
    ("w_x", "input", "D 4H"),
    ("w_h", "recurrent", "P 4H"),
    ("w_p", "recurrent", "H P"),
    ("b", "bias", "4H"),
)


def lstm_book_gradient(
    product: Product, z_x: Gates, carry: LSTMCarry, hidden: Mask = None, update: Mask = None
) -> Step[LSTMCarry]:
    """`lstm` with the incomplete gradient of a textbook's autograd, reproduced on purpose.

        i, f = sigmoid(x w_x + stop(h) w_h + b)    g = tanh(x w_x + stop(h) w_h + b)    o = sigmoid(x w_x + h w_o + b)
        c' = f * stop(c) + i * g
        h' = o * tanh(c')

    stop is the identity, without gradient.
    The book's autograd keeps only the first gradient that reaches a tensor. As a result, gradients flow from step to
    step only through the output gate. The weights of all gates still learn, and the forward pass equals that of `lstm`
    with w_h and w_o concatenated.
    Parameters: w_x [D, 4H] and b [4H] in the order i, f, g, o; w_h [H, 3H] in the order i, f, g; w_o [H, H]. One bias.

    Trask (2019). "Grokking Deep Learning", chapter 14.
    """
    stop, h = jax.lax.stop_gradient, masked(hidden, carry.h)
    z_h = jnp.concatenate([product("w_h", stop(h)), product("w_o", h)], axis=-1)
    i, f, g, o = squash(z_x + z_h, "ssts")
    c = f * stop(carry.c) + i * masked(update, g)
    return LSTMCarry(c, o * jnp.tanh(c)), {"i": i, "f": f, "g": g, "o": o}


BOOK_SHAPES = (
    ("w_x", "input", "D 4H"),
    ("w_h", "recurrent", "H 3H"),
    ("w_o", "recurrent", "H H"),
    ("b", "bias", "4H"),
)


class StabilisedCarry(NamedTuple):
    """The state of an sLSTM: memory and normaliser in units of exp(m), stabiliser m, output h.

    The unit exp(m) of scaled_c changes at every step. Old and new values therefore cannot be mixed, and the cell does
    not support zoneout of the memory.
    """

    scaled_c: Float[Array, "B H"]
    scaled_n: Float[Array, "B H"]
    m: Float[Array, "B H"]
    h: Float[Array, "B H"]


def slstm(z_x: Gates, z_h: Gates, carry: StabilisedCarry, update: Mask = None) -> Step[StabilisedCarry]:
    """sLSTM: an LSTM with an exponential input gate i, and a normaliser n, the decayed sum of i.

        g = tanh(z_g)    o = sigmoid(z_o)    log i = z_i    log f = log sigmoid(z_f)
        m' = max(log f + m, log i), or log i while n = 0    i' = exp(log i - m')    f' = exp(log f + m - m')
        c' = f' * c + i' * g
        n' = f' * n + i'
        h' = o * c' / n'

    Subtracting m' keeps all exponents at or below 0; m cancels in h'. c and n are the carry's scaled_c and scaled_n.
    Parameters: w_x [D, 4H], w_h [H, 4H], b [4H]. Gates i, f, g, o. One bias.

    Beck, Pöppel, Spanring, Auer, Prudnikova, Kopp, Klambauer, Brandstetter and Hochreiter (2024). "xLSTM: Extended
    Long Short-Term Memory", equations 8 to 17, with the sigmoid forget gate and a single head.
    """
    log_i, z_f, z_g, z_o = jnp.split(z_x + z_h, 4, axis=-1)
    log_f = jax.nn.log_sigmoid(z_f)
    empty = carry.scaled_n == 0
    m = jnp.where(empty, log_i, jnp.maximum(log_f + carry.m, log_i))
    i = jnp.exp(log_i - m)
    f = jnp.where(empty, 0.0, jnp.exp(jnp.where(empty, 0.0, log_f + carry.m - m)))
    g, o = jnp.tanh(z_g), jax.nn.sigmoid(z_o)
    c = f * carry.scaled_c + i * masked(update, g)
    n = f * carry.scaled_n + i
    return StabilisedCarry(c, n, m, o * c / n), {"i": i, "f": f, "g": g, "o": o}


def mogrifier(
    rounds: int, product: Product, x: Rows, carry: LSTMCarry, b: Vector, hidden: Mask = None, update: Mask = None
) -> Step[LSTMCarry]:
    """LSTM whose input and state gate each other before each step, in rounds k = 1, 2, ...

        x <- 2 sigmoid(h w_mutual_k) * x      for odd k
        h <- 2 sigmoid(x w_mutual_k) * h      for even k
        then i, f, g, o, c', h' as in `lstm`, from z = x w_x + h w_h + b

    The number of rounds is config.model.mogrifier_rounds.
    Parameters: w_mutual_k [H, D] for odd k, [D, H] for even k; w_x [D, 4H], w_h [H, 4H], b [4H]. Gates i, f, g, o.
    One bias.

    Melis, Kočiský and Blunsom (2020). "Mogrifier LSTM". Here without the paper's low-rank factors.
    """
    h = masked(hidden, carry.h)
    for k in range(1, rounds + 1):
        if k % 2:
            x = 2 * jax.nn.sigmoid(product(f"w_mutual_{k}", h)) * x
        else:
            h = 2 * jax.nn.sigmoid(product(f"w_mutual_{k}", x)) * h
    return lstm(product("w_x", x) + b[None], product("w_h", h), carry, update)


@functools.cache
def lstm_projection_cell(projection: int) -> StepCell:
    """`lstm_projection` with outputs of size P = projection."""
    return StepCell(LSTMCarry, lstm_projection, PROJECTION_SHAPES, output=projection)


@functools.cache
def mogrifier_cell(rounds: int) -> UnprojectedCell:
    """`mogrifier` with this number of rounds."""
    shapes = (
        *((f"w_mutual_{k}", *(("recurrent", "H D") if k % 2 else ("input", "D H"))) for k in range(1, rounds + 1)),
        ("w_x", "input", "D 4H"),
        ("w_h", "recurrent", "H 4H"),
        ("b", "bias", "4H"),
    )
    return UnprojectedCell(LSTMCarry, functools.partial(mogrifier, rounds), shapes)


LSTM_CELLS = {
    "lstm": pointwise(LSTMCarry, 4, lstm),
    "lstm_unfused": UnprojectedCell(LSTMCarry, lstm_unfused, UNFUSED_SHAPES),
    "lstm_1997": StepCell(LSTMCarry, lstm_1997, LSTM_1997_SHAPES),
    "lstm_peephole": pointwise(LSTMCarry, 4, lstm_peephole, PEEPHOLES),
    "lstm_coupled": pointwise(LSTMCarry, 3, lstm_coupled),
    "lstm_book_gradient": StepCell(LSTMCarry, lstm_book_gradient, BOOK_SHAPES),
    "slstm": pointwise(StabilisedCarry, 4, slstm),
}
