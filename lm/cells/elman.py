"""Simple recurrent networks: Elman and Jordan. Notation and conventions: lm/cells/__init__.py."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from lm.cells.kinds import (
    Gates,
    HiddenCarry,
    Mask,
    OutputCarry,
    Product,
    Step,
    StepCell,
    Vector,
    masked,
    pointwise,
)


def elman(activation: Callable, z_x: Gates, z_h: Gates, carry: HiddenCarry) -> Step[HiddenCarry]:
    """Elman network, also called the simple or basic RNN.

        h' = activation(x w_x + h w_h + b)

    The activation is part of the cell's name: sigmoid, tanh or relu.
    Parameters: w_x [D, H], w_h [H, H], b [H]. One bias.

    Elman (1990). "Finding Structure in Time". With relu: Le, Jaitly and Hinton (2015), "A Simple Way to Initialize
    Recurrent Networks of Rectified Linear Units".
    """
    del carry
    return HiddenCarry(activation(z_x + z_h)), {}


def elman_two_biases(z_x: Gates, z_h: Gates, carry: HiddenCarry, b_h: Vector) -> Step[HiddenCarry]:
    """Elman network with a bias on each product.

        h' = sigmoid(x w_x + b + h w_h + b_h)

    Computes the same functions as `elman_sigmoid`, but trains differently: each bias receives the full gradient, so
    their sum learns at twice the rate. torch.nn.RNN has two biases too.
    Parameters: w_x [D, H], w_h [H, H], b [H], b_h [H]. Two biases.

    Trask (2019). "Grokking Deep Learning", chapter 14.
    """
    del carry
    return HiddenCarry(jax.nn.sigmoid(z_x + z_h + b_h[None])), {}


def jordan(product: Product, z_x: Gates, carry: HiddenCarry, b_y: Vector, hidden: Mask = None) -> Step[HiddenCarry]:
    """Jordan network: the output y, a layer above the hidden one, feeds back.

        u = sigmoid(x w_x + y w_h + b)
        y' = sigmoid(u w_y + b_y)

    y is the layer's output, which the model's softmax reads, so the carry holds it in the field h. u has the same size.
    The softmax's probabilities do not feed back; they do in `jordan_softmax`.
    Parameters: w_x [D, H], w_h [H, H], b [H], w_y [H, H], b_y [H]. One bias per layer.

    Jordan (1986). "Serial Order: A Parallel Distributed Processing Approach". In the form of Larson, "Machine Learning
    in Python: Recurrent Neural Networks" (lecture notes).
    """
    u = jax.nn.sigmoid(z_x + product("w_h", masked(hidden, carry.h)))
    return HiddenCarry(jax.nn.sigmoid(product("w_y", u) + b_y[None])), {}


JORDAN_SHAPES = (
    ("w_x", "input", "D H"),
    ("w_h", "recurrent", "H H"),
    ("b", "bias", "H"),
    ("w_y", "recurrent", "H H"),
    ("b_y", "bias", "H"),
)


def jordan_softmax(product: Product, z_x: Gates, carry: OutputCarry, b_y: Vector) -> Step[OutputCarry]:
    """Jordan network whose softmax probabilities feed back.

        u = sigmoid(x w_x + p w_h + b)
        h' = u w_y + b_y
        p' = softmax(h')

    The layer's output h is already the logits of P classes, so use config.model.output=identity.
    P is config.model.projection, or H if that is 0.
    Parameters: w_x [D, H], w_h [P, H], b [H], w_y [H, P], b_y [P]. One bias per layer.

    Mesnil, He, Deng and Bengio (2013). "Investigation of Recurrent-Neural-Network Architectures and Learning Methods
    for Spoken Language Understanding".
    """
    u = jax.nn.sigmoid(z_x + product("w_h", carry.p))
    h = product("w_y", u) + b_y[None]
    return OutputCarry(p=jax.nn.softmax(h), h=h), {}


JORDAN_SOFTMAX_SHAPES = (
    ("w_x", "input", "D H"),
    ("w_h", "recurrent", "P H"),
    ("b", "bias", "H"),
    ("w_y", "output", "H P"),
    ("b_y", "output_bias", "P"),
)


@functools.cache
def jordan_softmax_cell(projection: int) -> StepCell:
    """`jordan_softmax` with P = projection classes; P = H if projection is 0."""
    return StepCell(
        OutputCarry, jordan_softmax, JORDAN_SOFTMAX_SHAPES, masks=(), output=projection or None, read=("p",)
    )


ELMAN_CELLS = {
    **{
        f"elman_{name}": pointwise(HiddenCarry, 1, functools.partial(elman, activation), masks=("hidden",))
        for name, activation in (("sigmoid", jax.nn.sigmoid), ("tanh", jnp.tanh), ("relu", jax.nn.relu))
    },
    "elman_sigmoid_two_biases": pointwise(HiddenCarry, 1, elman_two_biases, (("b_h", "bias"),), masks=("hidden",)),
    "jordan": StepCell(HiddenCarry, jordan, JORDAN_SHAPES, masks=("hidden",)),
}
