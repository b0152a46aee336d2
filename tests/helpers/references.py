"""Reference implementations in float64 NumPy, written from the papers' equations and the sources' listings.

Does not import lm/. Shapes: lm/cells/__init__.py. Parameters are nested dicts of arrays under the model's names. The
gates of an LSTM have the order i, f, g, o; a state is [(c, h), ...].
"""

import copy

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def log_softmax(logits):
    """Over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def nats(logits, targets):
    """-ln p(target): logits [..., V], integer targets [...] -> [...]."""
    logits = np.asarray(logits, np.float64)
    return -np.take_along_axis(log_softmax(logits), np.asarray(targets)[..., None].astype(int), axis=-1)[..., 0]


# --- The LSTM language model, one token at a time ---------------------------------------------------------------


def float64(parameters):
    """A copy of a nested dict of arrays in float64."""
    if hasattr(parameters, "items"):
        return {name: float64(value) for name, value in parameters.items()}
    return np.array(parameters, np.float64)


def lstm_step(p, x, c, h):
    """x [B, D], c and h [B, H] -> (c, h)."""
    units = p["w_h"].shape[0]
    z = x @ p["w_x"] + h @ p["w_h"] + p["b"]
    i = sigmoid(z[:, 0 * units : 1 * units])
    f = sigmoid(z[:, 1 * units : 2 * units])
    g = np.tanh(z[:, 2 * units : 3 * units])
    o = sigmoid(z[:, 3 * units : 4 * units])
    c = f * c + i * g
    return c, o * np.tanh(c)


def layers(p):
    return [p[f"layer_{index}"] for index in range(sum(name.startswith("layer_") for name in p))]


def zero_state(p, batch):
    return [(np.zeros((batch, q["w_h"].shape[0])), np.zeros((batch, q["w_h"].shape[0]))) for q in layers(p)]


def read(p, state, symbols):
    """One time step on input symbols [B]. Returns (state, logits [B, V]). One-hot input without an embedding."""
    table = p["embedding"] if "embedding" in p else np.eye(p["layer_0"]["w_x"].shape[0])
    x, after = table[symbols], []
    for q, (c, h) in zip(layers(p), state, strict=True):
        c, h = lstm_step(q, x, c, h)
        after.append((c, h))
        x = h
    return after, x @ p["output_kernel"] + p["output_bias"]


def read_context(p, state, tokens, vocabulary):
    """`read` for the newest tokens: characters [1, B], or [2, B], which make the bigram a + V b."""
    tokens = np.asarray(tokens, int)
    return read(p, state, tokens[0] if len(tokens) == 1 else tokens[0] + vocabulary * tokens[1])


def window_nats(p, state, window, context=1):
    """window [T + 1, B] -> (state, nats [T + 1 - context, B])."""
    vocabulary, result = len(p["output_bias"]), []
    for t in range(len(window) - context):
        state, logits = read_context(p, state, window[t : t + context], vocabulary)
        result.append(nats(logits, window[t + context]))
    return state, np.array(result)


# --- Gradients and steps ----------------------------------------------------------------------------------------


def central_differences(function, parameters, width=1e-5):
    """Gradient of function(parameters) -> float, by two evaluations per number."""
    parameters = copy.deepcopy(parameters)

    def walk(node):
        if isinstance(node, dict):
            return {name: walk(value) for name, value in node.items()}
        gradient = np.zeros_like(node)
        for index in np.ndindex(node.shape):
            value = node[index]
            node[index] = value + width
            above = function(parameters)
            node[index] = value - width
            below = function(parameters)
            node[index] = value
            gradient[index] = (above - below) / (2 * width)
        return gradient

    return walk(parameters)


def leaves(tree, path=""):
    """{dotted name: array} of a nested dict."""
    if not hasattr(tree, "items"):
        return {path: np.asarray(tree)}
    found = {}
    for name, value in tree.items():
        found |= leaves(value, f"{path}.{name}" if path else name)
    return found


def global_norm(tree):
    return float(np.sqrt(sum(np.sum(np.square(x)) for x in leaves(tree).values())))


def scaled_sum(parameters, gradient, factor):
    """parameters + factor * gradient."""
    if isinstance(parameters, dict):
        return {name: scaled_sum(value, gradient[name], factor) for name, value in parameters.items()}
    return parameters + factor * gradient


def sgd_step(parameters, state, window, rate, clip, weigh=np.mean):
    """One step of plain SGD, with the gradient clipped by its global norm.

    weigh: nats [T, B] -> objective. Returns (parameters, state after the window, mean nats, gradient norm).
    """
    gradient = central_differences(lambda p: float(weigh(window_nats(p, state, window)[1])), parameters)
    norm = global_norm(gradient)
    state, per_target = window_nats(parameters, state, window)
    scale = min(1.0, clip / norm)
    return scaled_sum(parameters, gradient, -rate * scale), state, float(per_target.mean()), norm


# --- Batches ----------------------------------------------------------------------------------------------------


class BatchGenerator:
    """BatchGenerator of Vanhoucke (2016), Udacity, assignment 6, on ids instead of one-hot rows."""

    def __init__(self, text, batch_size, num_unrollings):
        self._text = text
        self._text_size = len(text)
        self._batch_size = batch_size
        self._num_unrollings = num_unrollings
        segment = self._text_size // batch_size
        self._cursor = [offset * segment for offset in range(batch_size)]
        self._last_batch = self._next_batch()

    def _next_batch(self):
        batch = np.zeros(self._batch_size, int)
        for b in range(self._batch_size):
            batch[b] = self._text[self._cursor[b]]
            self._cursor[b] = (self._cursor[b] + 1) % self._text_size
        return batch

    def next(self):
        """num_unrollings + 1 batches [W, B]; the first is the last of the previous call."""
        batches = [self._last_batch]
        for _ in range(self._num_unrollings):
            batches.append(self._next_batch())
        self._last_batch = batches[-1]
        return np.array(batches)


def ptb_iterator(raw_data, batch_size, num_steps):
    """TensorFlow's reader.ptb_iterator: yields (x, y), each [B, T]."""
    batch_len = len(raw_data) // batch_size
    data = np.zeros([batch_size, batch_len], int)
    for i in range(batch_size):
        data[i] = raw_data[batch_len * i : batch_len * (i + 1)]
    for i in range((batch_len - 1) // num_steps):
        x = data[:, i * num_steps : (i + 1) * num_steps]
        y = data[:, i * num_steps + 1 : (i + 1) * num_steps + 1]
        yield x, y
