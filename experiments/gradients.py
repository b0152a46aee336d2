"""Shows why gates help: how far gradients reach back through time, in a two-unit chain and in this project's cells.

1. Ten steps of two units with weights [[1, 4], [4, 1]] (Trask 2019, Grokking Deep Learning, chapter 14): the gradient
   vanishes under a sigmoid and explodes under a rectifier.
2. Every cell, newly initialised, with `config.model.hidden[0]` units: the norm of d loss / d h_t for every step t of a
   window whose loss depends on the last h only.
3. If --workdir holds a trained run: the norm of d loss / d h_t in each of its layers, for texts that it generates. The
   loss is that of the last token.

Writes gradients.json and gradients.png to the workdir.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs.base import base
from experiments.pages import new_figure, png_of
from lm.cells.kinds import Cell, zero_carry
from lm.cells.recurrence import run_cell
from lm.cells.table import CELLS, make_cell
from lm.model.initialisers import initialiser
from lm.model.language_model import read_tokens
from lm.run import Run, open_run
from lm.runs.files import make_directory, write_bytes, write_json

WEIGHTS = np.array([[1.0, 4.0], [4.0, 1.0]])
FORGET_BIAS = ("lstm_bias", 1.0)  # for cells with a forget bias: customary (Jozefowicz et al. 2015)
STEPS = 200
SMALLEST = 1e-20  # lower limit of the plot


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# The sigmoid chain starts from sigmoid([1, 0.01]), as in the book's listing. To give every digit that the book prints,
# the rectifier chain must start after one more sigmoid step and one product with the weights. The book's code probably
# ran with a variable left over from an earlier execution.
SIGMOID_START = sigmoid(np.array([1.0, 0.01]))
RELU_START = sigmoid(SIGMOID_START @ WEIGHTS) @ WEIGHTS


def chain(activation, slope, start: np.ndarray, steps: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Runs a_0 = start, a_k = activation(a_{k-1} W) in float64, then a gradient of ones back through the steps.

    slope: the derivative of the activation, as a function of its output.
    Returns activations [steps, 2] and gradients [steps, 2]; the gradients are ordered from the last step to the first.
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
    """The book's numbers: the activations and gradients of both chains."""
    chains = {
        "sigmoid": chain(sigmoid, lambda a: a * (1 - a), SIGMOID_START),
        "relu": chain(lambda x: np.maximum(x, 0), lambda a: (a > 0).astype(float), RELU_START),
    }
    return {name: {"activations": a, "gradients": gradients} for name, (a, gradients) in chains.items()}


def gradient_norms(cell_name: str, units: int, steps: int, key, batch: int = 16) -> np.ndarray:
    """Computes the batch mean of |d loss / d h_t| for t = 0 ... steps - 1, where the loss is the sum of the last h.
    Inputs [steps, B, H] are standard normal, and weights are drawn by the defaults of config.init."""
    config = base()
    config.model.cell, config.model.projection = cell_name, units if cell_name == "lstm_projection" else 0
    cell = make_cell(config.model)
    parameter_key, input_key = jax.random.split(key)
    parameters = draw_parameters(cell, units, config.init, parameter_key)
    inputs = jax.random.normal(input_key, (steps, batch, units))

    def loss(carry, outputs):
        return carry.h.sum() if hasattr(carry, "h") else sum(x.sum() for x in carry)

    return carry_gradient_norms(cell, units, parameters, inputs, loss)


def carry_gradient_norms(cell: Cell, units: int, parameters: dict, inputs, loss_of) -> np.ndarray:
    """Computes the batch mean of |d loss / d h_t| [T] for a layer that reads `inputs` [T, B, D] from a zero carry.

    loss_of: (carry after the last step, output of the last step [B, P]) -> the loss, a sum over the batch
    A zero is added to h after every step; the derivative is taken with respect to these zeros. If the next step does
    not read h, zeros are added to all fields of the carry.
    """
    steps, batch, _ = inputs.shape
    zeros = zero_carry(cell, batch, units)

    def loss(nudges):
        def step(carry, x):
            x_t, nudge = x
            carry, outputs = run_cell(cell, parameters, x_t[None], carry)
            return carry._replace(**{name: getattr(carry, name) + value for name, value in nudge.items()}), outputs[0]

        carry, outputs = jax.lax.scan(step, zeros, (inputs, nudges))
        return loss_of(carry, outputs[-1])

    start = {name: jnp.zeros((steps, *getattr(zeros, name).shape)) for name in measured_fields(cell, zeros)}
    gradients = np.concatenate([np.asarray(x, np.float64) for x in jax.jit(jax.grad(loss))(start).values()], axis=-1)
    return np.linalg.norm(gradients, axis=-1).mean(axis=-1)  # in float64: squares of 1e-30 underflow in float32


def measured_fields(cell: Cell, carry) -> tuple[str, ...]:
    """The fields of the carry whose gradients are measured: h, or all of them if the next step does not read h."""
    return ("h",) if "h" in (cell.read or carry._fields) else carry._fields


def draw_parameters(cell: Cell, units: int, init, key) -> dict:
    """Draws a layer's parameters by `init`, an LSTM's bias by FORGET_BIAS. The layer has `units` inputs."""
    shapes = cell.parameters(units, units)
    keys = jax.random.split(key, len(shapes))
    biases = [shape for role, shape in shapes.values() if role == "bias"]
    init = {**init, "bias": FORGET_BIAS} if biases == [(4 * units,)] else init
    return {
        name: initialiser(init[role])(own_key, shape)
        for (name, (role, shape)), own_key in zip(shapes.items(), keys, strict=True)
    }


def trained_norms(run: Run, batch: int = 16) -> dict[str, np.ndarray]:
    """Computes |d loss / d h_t| in each layer of a trained model for the last STEPS steps, averaged over `batch` texts
    that the model generates. The loss is -ln p of the last token. If no step reads h, the whole carry counts."""
    run.check_task("--experiment=gradients", "language_modelling")
    model, context = run.model, run.model.context
    texts = run.sample(number=batch, length=STEPS + context, stop="")
    tokens = jnp.asarray(np.stack([run.encode(text)[: STEPS + context] for text in texts], axis=1))
    nudges = jax.tree.map(lambda x: jnp.zeros((STEPS, *x.shape)), model.initial_carry(batch))

    def loss(nudges):
        def step(carry, inputs):
            start, nudge = inputs
            window = jax.lax.dynamic_slice_in_dim(tokens, start, context)
            carry, logits = read_tokens(model, run.parameters, window, jax.tree.map(jnp.add, carry, nudge))
            return carry, logits[-1]

        _, logits = jax.lax.scan(step, model.initial_carry(batch), (jnp.arange(STEPS), nudges))
        targets = jax.nn.one_hot(tokens[-1], logits.shape[-1])
        return -(jax.nn.log_softmax(logits[-1]) * targets).sum()

    gradients = jax.jit(jax.grad(loss))(nudges)
    norms = {}
    for index, layer in enumerate(gradients):
        fields = measured_fields(model.cell, layer)
        state = np.concatenate([np.asarray(getattr(layer, field), np.float64) for field in fields], axis=-1)
        norms[f"layer {index}, trained"] = np.linalg.norm(state, axis=-1).mean(axis=-1)
    return norms


def plot(panels: dict[str, dict[str, Any]]) -> bytes:
    """Draws |d loss / d h_t| on a log scale against the distance from the loss, one line per cell. Returns a PNG.

    panels: title -> {cell: norms, an array or a list}
    """
    figure = new_figure(4 + 6 * len(panels), 6)
    styles = [(colour, line) for line in ("-", "--", ":") for colour in range(10)]
    for axes, (title, norms) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for (colour, line), (name, values) in zip(styles, norms.items(), strict=False):
            axes.semilogy(np.arange(len(values))[::-1], values, line, color=f"C{colour}", label=name)
        axes.set(xlabel="steps before the loss", ylabel="norm of d loss / d h", title=title)
        axes.set_ylim(bottom=SMALLEST)
        axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8)
    return png_of(figure)


def run(config, workdir, data_dir=None):
    """Writes gradients.json and gradients.png, and returns the content of gradients.json. Prints the norms, and the
    book's numbers if `workdir` holds no run."""
    workdir = make_directory(workdir)
    demo, trained = demonstration(), {}
    if (workdir / "config.json").exists():
        trained = trained_norms(open_run(workdir))
    else:
        for name, numbers in demo.items():
            print(f"{name} activations, then gradients, ten steps each")
            for row in (*numbers["activations"], *numbers["gradients"]):
                print(f"  [{row[0]:.9g} {row[1]:.9g}]")
    key = jax.random.key(config.seed)
    norms = {name: gradient_norms(name, config.model.hidden[0], STEPS, key) for name in CELLS} | trained
    for name, values in norms.items():
        ends = f"{values[-1]:.3g} at the last step and {values[0]:.3g} at the first of {STEPS}"
        print(f"{name}: |d loss / d h| is {ends}")
    record = {"demonstration": demo, "norms": norms}
    write_json(workdir / "gradients.json", record)
    write_bytes(workdir / "gradients.png", plot({"How far a gradient reaches back": norms}))
    print(f"wrote {workdir / 'gradients.png'}")
    return record
