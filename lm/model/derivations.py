"""Gradients derived by hand, in NumPy: a window model, and recurrent networks over T steps.

`window`, `network` and `last_of_two_steps` return a loss and its gradient by parameter, derived in docs/derivations.md.
The command `derivations` checks them with autodiff and finite differences. Vectors are rows: z = x W + b. d_z is the
gradient of the loss with respect to z.

Source: Socher et al. (2015), CS224d, assignment 2, questions 2a, 3b and 3c. For LSTM and GRU: the chain rule on the
equations of lm/cells.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Parameters = dict[str, np.ndarray]


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-z))


def softmax_error(logits: np.ndarray, target: int) -> tuple[float, np.ndarray]:
    """Returns (-ln softmax(logits)[target], its gradient with respect to the logits: softmax - one_hot)."""
    scaled = np.exp(logits - logits.max())
    probabilities = scaled / scaled.sum()
    return -float(np.log(probabilities[target])), probabilities - np.eye(len(logits))[target]


# --- The window model -----------------------------------------------------------------------------------------------


def tanh_slope(h: np.ndarray) -> np.ndarray:
    """Derivative of tanh, from its value h."""
    return 1 - h**2


def salvatore_tanh_slope(h: np.ndarray) -> np.ndarray:
    """Salvatore (2017), question 2a, last line: twice the derivative, which is 4 s (1 - s) with s = (h + 1) / 2. His
    fourth line, 4 s (4 - 4 s), is four times the derivative; his last line drops a factor of 2."""
    return 2 * (h + 1) * (2 - (h + 1))


def window(p: Parameters, tokens: Sequence[int], label: int, slope: Callable = tanh_slope) -> tuple[float, Parameters]:
    """Loss and gradient of softmax(tanh(x W + b1) U + b2), x: joined embeddings. Keys of p: as in WindowClassifier."""
    x = p["embedding"][tokens].reshape(-1)
    h = np.tanh(x @ p["input_kernel"] + p["bias"])
    loss, d_logits = softmax_error(h @ p["output_kernel"] + p["output_bias"], label)
    d_z = p["output_kernel"] @ d_logits * slope(h)
    d_embedding = np.zeros_like(p["embedding"])
    np.add.at(d_embedding, tokens, (p["input_kernel"] @ d_z).reshape(len(tokens), -1))  # a word may occur twice
    return loss, {
        "embedding": d_embedding,
        "input_kernel": np.outer(x, d_z),
        "bias": d_z,
        "output_kernel": np.outer(h, d_logits),
        "output_bias": d_logits,
    }


# --- Recurrent networks ---------------------------------------------------------------------------------------------


class Recurrence(NamedTuple):
    """forward: (p, x, state) -> (next state, values that `backward` needs). A state is a tuple whose last item is h.
    backward: (p, x, state, values, d_state) -> (d_x, d_state before the step, gradient by parameter)
    """

    forward: Callable
    backward: Callable


def elman_forward(p, x, state):
    h = sigmoid(x @ p["w_x"] + state[0] @ p["w_h"] + p["b"])
    return (h,), h


def elman_backward(p, x, state, h, d_state):
    d_z = d_state[0] * h * (1 - h)
    return p["w_x"] @ d_z, (p["w_h"] @ d_z,), {"w_x": np.outer(x, d_z), "w_h": np.outer(state[0], d_z), "b": d_z}


def lstm_forward(p, x, state):
    c, h = state
    z = np.split(x @ p["w_x"] + h @ p["w_h"] + p["b"], 4)
    i, f, g, o = sigmoid(z[0]), sigmoid(z[1]), np.tanh(z[2]), sigmoid(z[3])
    after = f * c + i * g
    return (after, o * np.tanh(after)), (i, f, g, o, np.tanh(after))


def lstm_backward(p, x, state, values, d_state):
    (c, h), (i, f, g, o, t), (d_c, d_h) = state, values, d_state
    d_c = d_c + d_h * o * (1 - t**2)  # the loss also depends on the new c through the new h
    d_z = np.concatenate([
        d_c * g * i * (1 - i),
        d_c * c * f * (1 - f),
        d_c * i * (1 - g**2),
        d_h * t * o * (1 - o),
    ])  # fmt: skip
    return p["w_x"] @ d_z, (d_c * f, p["w_h"] @ d_z), {"w_x": np.outer(x, d_z), "w_h": np.outer(h, d_z), "b": d_z}


def gru_forward(p, x, state):
    (h,), units = state, len(state[0])
    z_x = x @ p["w_x"] + p["b"]
    r, z = np.split(sigmoid(z_x[: 2 * units] + h @ p["w_h"]), 2)
    g = np.tanh(z_x[2 * units :] + (r * h) @ p["w_g"])
    return (z * h + (1 - z) * g,), (r, z, g)


def gru_backward(p, x, state, values, d_state):
    (h,), (r, z, g), (d_h,) = state, values, d_state
    d_g = d_h * (1 - z) * (1 - g**2)
    d_rh = p["w_g"] @ d_g  # gradient of r * h, which the candidate reads
    d_gates = np.concatenate([d_rh * h * r * (1 - r), d_h * (h - g) * z * (1 - z)])
    d_z = np.concatenate([d_gates, d_g])
    before = d_h * z + d_rh * r + p["w_h"] @ d_gates
    gradient = {"w_x": np.outer(x, d_z), "w_h": np.outer(h, d_gates), "w_g": np.outer(r * h, d_g), "b": d_z}
    return p["w_x"] @ d_z, (before,), gradient


RECURRENCES = {
    "elman_sigmoid": Recurrence(elman_forward, elman_backward),
    "lstm": Recurrence(lstm_forward, lstm_backward),
    "gru": Recurrence(gru_forward, gru_backward),
}


def network(cell: str, p: Parameters, tokens: Sequence[int], targets: Sequence[int]) -> tuple[float, Parameters]:
    """Loss and gradient by back-propagation through all steps. The loss sums -ln softmax(h_t U + b2)[target].

    p: embedding (its rows are the x_t), output_kernel, output_bias, initial (its rows are the fields of the initial
       state), and the cell's parameters
    """
    recurrence = RECURRENCES[cell]
    state, steps, loss = tuple(p["initial"]), [], 0.0
    gradient = {name: np.zeros_like(value) for name, value in p.items()}
    for token, target in zip(tokens, targets, strict=True):
        x, before = p["embedding"][token], state
        state, values = recurrence.forward(p, x, before)
        nats, d_logits = softmax_error(state[-1] @ p["output_kernel"] + p["output_bias"], target)
        loss += nats
        steps.append((token, x, before, values, state[-1], d_logits))
    d_state = tuple(np.zeros_like(each) for each in state)
    for token, x, before, values, h, d_logits in reversed(steps):
        gradient["output_kernel"] += np.outer(h, d_logits)
        gradient["output_bias"] += d_logits
        d_state = (*d_state[:-1], d_state[-1] + p["output_kernel"] @ d_logits)  # from later steps and this step's loss
        d_x, d_state, step_gradient = recurrence.backward(p, x, before, values, d_state)
        gradient["embedding"][token] += d_x
        for name, value in step_gradient.items():
            gradient[name] += value
    gradient["initial"] = np.stack(d_state)
    return loss, gradient


def all_paths(w_h: np.ndarray, d_z: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Unit j of the first step reaches every unit k of the second, by w_h[j, k]."""
    return w_h @ d_z * slope


def salvatore_paths(w_h: np.ndarray, d_z: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Salvatore (2017), equations 48, 50 and 52: unit j reaches only itself, by w_h[j, j]."""
    return np.diag(w_h) * d_z * slope


def last_of_two_steps(
    p: Parameters, tokens: Sequence[int], target: int, paths: Callable = all_paths
) -> tuple[float, Parameters]:
    """Loss at the second of two steps of the sigmoid network, and its gradient by w_h, w_x and b. The initial state is
    a constant.

    paths: (w_h, d_z of step 2, slope of step 1) -> d_z of step 1
    """
    (h0,), (x1, x2) = p["initial"], p["embedding"][tokens]
    h1 = sigmoid(x1 @ p["w_x"] + h0 @ p["w_h"] + p["b"])
    h2 = sigmoid(x2 @ p["w_x"] + h1 @ p["w_h"] + p["b"])
    loss, d_logits = softmax_error(h2 @ p["output_kernel"] + p["output_bias"], target)
    d_z2 = p["output_kernel"] @ d_logits * h2 * (1 - h2)
    d_z1 = paths(p["w_h"], d_z2, h1 * (1 - h1))
    w_h, w_x = np.outer(h1, d_z2) + np.outer(h0, d_z1), np.outer(x2, d_z2) + np.outer(x1, d_z1)
    return loss, {"w_h": w_h, "w_x": w_x, "b": d_z2 + d_z1}
