"""Why gates: gradients through time, first in ten steps by hand, then in real cells.

1. The demonstration of Grokking Deep Learning ch. 14 (seeds/003_dd9b8d334f3bc5a7.txt): ten steps of a two-unit chain
   with weights [[1, 4], [4, 1]]; its gradient vanishes under a sigmoid and explodes under a rectifier.
2. For freshly drawn cells of `config.model.hidden[0]` units: the norm of d loss / d h_t for every step t of a window,
   when the loss is read at the last step only.

Writes gradients.json and gradients.png to the workdir.
"""

import io

import jax
import jax.numpy as jnp
import numpy as np

from lm.cells.recurrence import run as run_cell
from lm.cells.table import CELLS, zero_carry
from lm.model.initialisers import initialiser
from lm.runs.metrics import make_directory, write_bytes, write_json

WEIGHTS = np.array([[1.0, 4.0], [4.0, 1.0]])
# Cell -> initialiser of its biases; the forget gate's is 1, as is the custom (Jozefowicz et al. 2015).
CELLS_SHOWN = {"elman_sigmoid": ("zeros",), "elman_tanh": ("zeros",), "lstm": ("lstm_bias", 1.0), "gru": ("zeros",)}
STEPS = 100


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def rectifier(x):
    return np.maximum(x, 0)


# The sigmoid chain begins from sigmoid([1, 0.01]), as the book's listing says. The book's rectifier numbers do not
# follow from there: they follow, to every printed digit, from one sigmoid step and one more product, so its printed
# run must have carried state over from an earlier one.
SIGMOID_START = sigmoid(np.array([1.0, 0.01]))
RELU_START = sigmoid(SIGMOID_START @ WEIGHTS) @ WEIGHTS


def chain(activation, slope, start: np.ndarray, steps: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """a_0 = start, a_k = activation(a_{k-1} W), in float64; then a gradient of ones runs back.

    slope: the derivative of the activation, as a function of its output.
    Returns activations [steps, 2] and gradients [steps, 2], the latter from the last step to the first.
    """
    activations, gradients = [], []
    a, gradient = start, np.ones(2)
    for _ in range(steps):
        a = activation(a @ WEIGHTS)
        activations.append(a)
    for a in reversed(activations):
        gradient = (slope(a) * gradient) @ WEIGHTS.T
        gradients.append(gradient)
    return np.array(activations), np.array(gradients)


def demonstration() -> dict:
    """The book's numbers: activations and gradients of both activations."""
    sigmoid_chain = chain(sigmoid, lambda a: a * (1 - a), SIGMOID_START)
    relu_chain = chain(rectifier, lambda a: (a > 0).astype(float), RELU_START)
    return {
        name: {"activations": activations, "gradients": gradients}
        for name, (activations, gradients) in (("sigmoid", sigmoid_chain), ("relu", relu_chain))
    }


def gradient_norms(cell_name: str, units: int, steps: int, key, batch: int = 16) -> np.ndarray:
    """|d loss / d h_t| for t = 0 ... steps - 1, mean over a batch of random inputs; loss = sum of the last h.

    Inputs [steps, B, H] are standard normal; weights glorot_uniform, biases as CELLS_SHOWN says. The derivative is
    taken with respect to a zero added to the carry's h after every step.
    """
    cell = CELLS[cell_name]
    parameter_key, input_key = jax.random.split(key)
    weights = ("glorot_uniform",)
    specification = {"input": weights, "recurrent": weights, "bias": CELLS_SHOWN[cell_name]}
    shapes = cell.parameters(units, units)
    parameters = {
        name: initialiser(specification.get(role, ("zeros",)))(subkey, shape)
        for (name, (role, shape)), subkey in zip(
            shapes.items(), jax.random.split(parameter_key, len(shapes)), strict=True
        )
    }
    inputs = jax.random.normal(input_key, (steps, batch, units))

    def loss(nudges):
        def step(carry, x):
            x_t, nudge = x
            carry, _ = run_cell(cell, parameters, x_t[None], carry)
            return carry._replace(h=carry.h + nudge), None

        carry, _ = jax.lax.scan(step, zero_carry(cell, batch, units), (inputs, nudges))
        return carry.h.sum()

    gradients = np.asarray(jax.jit(jax.grad(loss))(jnp.zeros((steps, batch, units))), np.float64)
    return np.linalg.norm(gradients, axis=-1).mean(axis=-1)  # in float64: squares of 1e-30 underflow in float32


def plot(norms: dict[str, np.ndarray]) -> bytes:
    """PNG: |d loss / d h_t| against the distance from the loss, one line per cell, logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, values in norms.items():
        axes.semilogy(np.arange(len(values))[::-1], values, label=name)
    axes.set_xlabel("steps before the loss")
    axes.set_ylabel("norm of d loss / d h")
    axes.set_title("How far a gradient reaches back, at initialisation")
    axes.legend()
    axes.grid(alpha=0.3)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()


def run(config, workdir, data_dir=None):
    """Prints the demonstration, writes gradients.json and gradients.png, returns what the former holds."""
    del data_dir
    workdir = make_directory(workdir)
    demo = demonstration()
    for name, numbers in demo.items():
        print(f"{name} activations, then gradients, ten steps each")
        for row in (*numbers["activations"], *numbers["gradients"]):
            print(f"  [{row[0]:.9g} {row[1]:.9g}]")
    key = jax.random.key(config.seed)
    norms = {name: gradient_norms(name, config.model.hidden[0], STEPS, key) for name in CELLS_SHOWN}
    for name, values in norms.items():
        print(f"{name}: |d loss / d h| is {values[-1]:.3g} at the last step, {values[0]:.3g} {STEPS - 1} steps before")
    record = {"demonstration": demo, "norms": norms}
    write_json(workdir / "gradients.json", record)
    write_bytes(workdir / "gradients.png", plot(norms))
    return record
