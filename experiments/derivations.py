"""Compares gradients derived by hand with automatic differentiation and finite differences, in float64.

    python launch.py --experiment=derivations

The models (lm/model/derivations.py) are the window model and the recurrent network of Stanford's CS224d, an LSTM and a
GRU, over three steps. Also measures the errors of two wrong formulas in a published solution (Salvatore 2017), and
counts the operations of one step. Writes derivations.json and derivations.png.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.pages import new_figure, png_of
from experiments.pages.markdown import table
from lm.cells.kinds import Cell, HiddenCarry, LSTMCarry
from lm.cells.recurrence import run_cell
from lm.cells.table import CELLS
from lm.model import derivations
from lm.runs.files import make_own_directory, write_bytes, write_json

WORDS, SIZE, UNITS, STEPS = 7, 4, 5, 3  # vocabulary, embedding, hidden units, time steps
TOKENS, TARGETS = [2, 5, 2], [5, 2, 0]  # a word occurs twice: its row gets two gradients
WIDTH = 1e-5  # step of the central differences
CARRIES = {"elman_sigmoid": HiddenCarry, "lstm": LSTMCarry, "gru": HiddenCarry}
WINDOW_SHAPES = {
    "embedding": (WORDS, SIZE),
    "input_kernel": (len(TOKENS) * SIZE, UNITS),
    "bias": (UNITS,),
    "output_kernel": (UNITS, 5),
    "output_bias": (5,),
}


def run(config, workdir, data_dir=None):
    """Returns the content of derivations.json."""
    with jax.enable_x64(True):
        right, wrong = agreements(), wrong_formulas()
    content = {"right": right, "wrong": wrong, "operations": operations()}
    for title, rows in content.items():
        print(f"{title}\n{table(list(rows[0]), [[_shown(value) for value in row.values()] for row in rows])}\n")
    directory = make_own_directory(workdir, "derivations.json", "derivations.png")
    write_json(directory / "derivations.json", content)
    write_bytes(directory / "derivations.png", draw(right, wrong))
    print(f"wrote derivations.json and derivations.png to {directory}")
    return content


def _shown(value) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def random_parameters(shapes: dict[str, tuple[int, ...]]) -> derivations.Parameters:
    draw_number = np.random.default_rng(0)
    return {name: draw_number.normal(0, 0.7, shape) for name, shape in shapes.items()}


def cell_named(name: str) -> Cell:
    cell = CELLS[name]
    assert isinstance(cell, Cell)
    return cell


def network_shapes(cell: str) -> dict[str, tuple[int, ...]]:
    shapes = {name: shape for name, (_, shape) in cell_named(cell).parameters(SIZE, UNITS).items()}
    head = {"output_kernel": (UNITS, WORDS), "output_bias": (WORDS,)}
    return shapes | {"embedding": (WORDS, SIZE), "initial": (len(CARRIES[cell]._fields), UNITS)} | head


def window_loss(p):
    """The window model as JAX computes it."""
    hidden = jnp.tanh(p["embedding"][jnp.array(TOKENS)].reshape(-1) @ p["input_kernel"] + p["bias"])
    return -jax.nn.log_softmax(hidden @ p["output_kernel"] + p["output_bias"])[1]


def network_loss(cell: str, p):
    """The network as this project trains it: run_cell, with its own backward pass."""
    carry = CARRIES[cell](*(row[None] for row in p["initial"]))
    own = {name: p[name] for name in cell_named(cell).parameters(SIZE, UNITS)}
    _, h = run_cell(cell_named(cell), own, p["embedding"][jnp.array(TOKENS)][:, None], carry)
    log_probs = jax.nn.log_softmax(h[:, 0] @ p["output_kernel"] + p["output_bias"][None])
    return -log_probs[jnp.arange(STEPS), jnp.array(TARGETS)].sum()


def two_steps_loss(p):
    """The loss of the second of two steps."""
    own = {name: p[name] for name in ("w_x", "w_h", "b")}
    inputs = p["embedding"][jnp.array(TOKENS[:2])][:, None]
    _, h = run_cell(cell_named("elman_sigmoid"), own, inputs, HiddenCarry(p["initial"]))
    return -jax.nn.log_softmax(h[1, 0] @ p["output_kernel"] + p["output_bias"])[TARGETS[1]]


def agreements() -> list[dict]:
    """A row per model and parameter: relative distance of the hand-derived gradient from the two other gradients."""
    window = functools.partial(derivations.window, tokens=TOKENS, label=1)
    rows = compare("window", window, window_loss, random_parameters(WINDOW_SHAPES))
    for cell in derivations.RECURRENCES:
        by_hand = functools.partial(derivations.network, cell, tokens=TOKENS, targets=TARGETS)
        rows += compare(cell, by_hand, functools.partial(network_loss, cell), random_parameters(network_shapes(cell)))
    return rows


def compare(model: str, by_hand, loss, p: derivations.Parameters) -> list[dict]:
    """Rows of `agreements` for one model. by_hand: p -> (loss, gradient), in NumPy; loss: the same loss in JAX"""
    _, gradient = by_hand(p)
    automatic = jax.grad(loss)(jax.tree.map(jnp.asarray, p))
    numeric = differences(lambda changed: by_hand(changed)[0], p, gradient)
    rows = []
    for name, own in gradient.items():
        found = {
            "to automatic": distance(own, np.asarray(automatic[name])),
            "to differences": distance(own, numeric[name]),
        }
        rows.append({"model": model, "parameter": name, **found})
    return rows


def differences(loss, p: derivations.Parameters, names) -> derivations.Parameters:
    """Central differences of a loss with respect to the parameters in `names`."""
    found = {}
    for name in names:
        found[name] = np.zeros_like(p[name])
        for index in np.ndindex(p[name].shape):
            values = []
            for sign in (1, -1):
                moved = p[name].copy()
                moved[index] += sign * WIDTH
                values.append(loss(p | {name: moved}))
            found[name][index] = (values[0] - values[1]) / (2 * WIDTH)
    return found


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """|a - b| / |b|"""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def wrong_formulas() -> list[dict]:
    """One row for each wrong formula of Salvatore (2017) and each parameter: how far the gradient as printed, and the
    corrected gradient, are from automatic differentiation (relative distances)."""
    p, window = random_parameters(WINDOW_SHAPES), functools.partial(derivations.window, tokens=TOKENS, label=1)
    q, two = random_parameters(network_shapes("elman_sigmoid")), derivations.last_of_two_steps
    pairs = {
        "2a: tanh' is twice 1 - tanh^2": (window(p)[1], window(p, slope=derivations.salvatore_tanh_slope)[1]),
        "48, 50, 52: only the path from a unit to itself": (
            two(q, TOKENS[:2], TARGETS[1])[1],
            two(q, TOKENS[:2], TARGETS[1], derivations.salvatore_paths)[1],
        ),
    }
    losses = ((window_loss, p), (two_steps_loss, q))
    automatic = [jax.grad(loss)(jax.tree.map(jnp.asarray, parameters)) for loss, parameters in losses]
    rows = []
    for (formula, (corrected, printed)), truth in zip(pairs.items(), automatic, strict=True):
        for name in corrected:
            true = np.asarray(truth[name])
            found = {"as printed": distance(printed[name], true), "corrected": distance(corrected[name], true)}
            rows.append({"formula": formula, "parameter": name, **found})
    return rows


def operations(words: int = 2000, size: int = 50, units: int = 100) -> list[dict]:
    """Counts additions and multiplications of one step of the network with a one-hot input (CS224d, question 3d). XLA
    counts all; the formula, two per weight of a vector-matrix product and one per element of an outer product."""

    def loss(p, x, h, y):
        after = jax.nn.sigmoid(h @ p["w_h"] + x @ p["embedding"] @ p["w_x"] + p["b"])
        return -jnp.vdot(y, jax.nn.log_softmax(after @ p["output_kernel"] + p["output_bias"]))

    shapes = {"embedding": (words, size), "w_x": (size, units), "w_h": (units, units), "b": (units,)}
    shapes |= {"output_kernel": (units, words), "output_bias": (words,)}
    p = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    x, h = (jax.ShapeDtypeStruct((count,), jnp.float32) for count in (words, units))
    weights = words * size + size * units + units**2 + units * words
    back = units * words + units**2 + size * units  # the gradient flows back through all matrices except the embedding
    rows = {
        "forward": (loss, 2 * weights),
        "forward and backward": (jax.value_and_grad(loss, argnums=(0, 2)), 2 * weights + 2 * back + weights),
    }
    found = []
    for name, (function, count) in rows.items():
        analysis = jax.jit(function).lower(p, x, h, x).compile().cost_analysis() or {}
        found.append({"step": name, "of products": count, "by XLA": int(analysis["flops"])})
    return found


def draw(right: list[dict], wrong: list[dict]) -> bytes:
    """Bars of the relative distances, on a log scale."""
    figure = new_figure(12, 0.22 * len(right) + 2)
    left, panel = figure.subplots(1, 2)
    for axes, rows, name, columns in (
        (left, right, "model", ("to automatic", "to differences")),
        (panel, wrong, "formula", ("as printed", "corrected")),
    ):
        places = np.arange(len(rows))
        for offset, column in enumerate(columns):
            axes.barh(places + 0.4 * offset, [max(row[column], 1e-17) for row in rows], 0.4, label=column)
        labels = [f"{row[name].partition(':')[0]} {row['parameter']}" for row in rows]
        axes.set_yticks(places + 0.2, labels, fontsize=8)
        axes.set(xscale="log", xlabel="relative distance", xlim=(1e-17, 10))
        axes.invert_yaxis()
        axes.legend(loc="lower right")
        axes.grid(alpha=0.3, axis="x")
    left.set_title("gradients by hand")
    panel.set_title("two wrong formulas: distance to automatic differentiation")
    return png_of(figure)
