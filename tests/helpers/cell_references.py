"""Every cell's step in float64 NumPy, written gate by gate from the papers' equations. Does not import lm/.

A step takes (p, x [B, D], state, hidden, update) and returns (state, output [B, P]). p and state are dicts of arrays
under the cell's names; `hidden` multiplies h in recurrent products, `update` multiplies the candidate.

Every operation is analytic, so that steps also accept complex numbers. `complex_step` uses this to differentiate to
the last digit: f(x + 1e-30j d) = f(x) + 1e-30j f'(x) d involves no difference of close numbers.
"""

import copy

import numpy as np

EPSILON = 1e-30


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def relu(x):
    return np.where(x.real > 0, x, 0)


def stop(x):
    """The identity without derivative: drops the imaginary part, which carries it."""
    return x.real.astype(x.dtype)


def split(array, names, axis=-1):
    """Splits an axis into groups of equal width, by name."""
    return dict(zip(names, np.split(array, len(names), axis=axis), strict=True))


def gates(p, names, x, h):
    """x W_x + h W_h + b of each gate, one product at a time."""
    w_x, w_h, b = split(p["w_x"], names), split(p["w_h"], names), split(p["b"], names)
    return {name: x @ w_x[name] + h @ w_h[name] + b[name] for name in names}


def elman(activation):
    def step(p, x, s, hidden=1.0, update=1.0):
        h = activation(x @ p["w_x"] + (hidden * s["h"]) @ p["w_h"] + p["b"])
        return {"h": h}, h

    return step


def elman_two_biases(p, x, s, hidden=1.0, update=1.0):
    h = sigmoid((x @ p["w_x"] + p["b"]) + ((hidden * s["h"]) @ p["w_h"] + p["b_h"]))
    return {"h": h}, h


def jordan(p, x, s, hidden=1.0, update=1.0):
    u = sigmoid(x @ p["w_x"] + (hidden * s["h"]) @ p["w_h"] + p["b"])
    y = sigmoid(u @ p["w_y"] + p["b_y"])
    return {"h": y}, y


def jordan_softmax(p, x, s, hidden=1.0, update=1.0):
    h = sigmoid(x @ p["w_x"] + s["p"] @ p["w_h"] + p["b"]) @ p["w_y"] + p["b_y"]
    e = np.exp(h)
    return {"p": e / e.sum(axis=-1, keepdims=True), "h": h}, h


def lstm(p, x, s, hidden=1.0, update=1.0):
    z = gates(p, "ifgo", x, hidden * s["h"])
    c = sigmoid(z["f"]) * s["c"] + sigmoid(z["i"]) * np.tanh(z["g"]) * update
    h = sigmoid(z["o"]) * np.tanh(c)
    return {"c": c, "h": h}, h


def fuse_lstm(p, numpy=np):
    """Parameters of `lstm_unfused` -> those of the same `lstm`; numpy: the module of the arrays."""
    joints = {"w_x": "", "w_h": "", "b": "_"}
    gates = {name: [p[f"{name}{joint}{gate}"] for gate in "ifgo"] for name, joint in joints.items()}
    return {name: numpy.concatenate(parts, axis=-1) for name, parts in gates.items()}


def lstm_unfused(p, x, s, hidden=1.0, update=1.0):
    return lstm(fuse_lstm(p), x, s, hidden, update)


def lstm_1997(p, x, s, hidden=1.0, update=1.0):
    w_x, b, w_h = split(p["w_x"], "ifgo"), split(p["b"], "ifgo"), split(p["w_h"], "ifo")
    memory = s["c"]
    i, f, o = (sigmoid(x @ w_x[n] + (hidden * memory) @ w_h[n] + b[n]) for n in "ifo")
    g = np.tanh(x @ w_x["g"] + (o * hidden * memory) @ p["w_g"] + b["g"])
    c = f * memory + i * g * update
    return {"c": c, "h": np.tanh(c)}, np.tanh(c)


def lstm_peephole(p, x, s, hidden=1.0, update=1.0):
    z = gates(p, "ifgo", x, hidden * s["h"])
    i, f = sigmoid(z["i"] + p["p_i"] * s["c"]), sigmoid(z["f"] + p["p_f"] * s["c"])
    c = f * s["c"] + i * np.tanh(z["g"]) * update
    h = sigmoid(z["o"] + p["p_o"] * c) * np.tanh(c)
    return {"c": c, "h": h}, h


def lstm_coupled(p, x, s, hidden=1.0, update=1.0):
    z = gates(p, "igo", x, hidden * s["h"])
    i = sigmoid(z["i"])
    c = (1 - i) * s["c"] + i * np.tanh(z["g"]) * update
    h = sigmoid(z["o"]) * np.tanh(c)
    return {"c": c, "h": h}, h


def lstm_projection(p, x, s, hidden=1.0, update=1.0):
    after, m = lstm(p, x, s, hidden, update)
    r = m @ p["w_p"]
    return {"c": after["c"], "h": r}, r


def lstm_book_gradient(p, x, s, hidden=1.0, update=1.0):
    w_x, b, w_h = split(p["w_x"], "ifgo"), split(p["b"], "ifgo"), split(p["w_h"], "ifg")
    h = hidden * s["h"]
    i, f, g = (x @ w_x[n] + stop(h) @ w_h[n] + b[n] for n in "ifg")
    o = sigmoid(x @ w_x["o"] + h @ p["w_o"] + b["o"])
    c = sigmoid(f) * stop(s["c"]) + sigmoid(i) * np.tanh(g) * update
    h = o * np.tanh(c)
    return {"c": c, "h": h}, h


def slstm(p, x, s, hidden=1.0, update=1.0):
    """Without the stabiliser: reads c = exp(m) scaled_c and n = exp(m) scaled_n, and returns m = 0."""
    z = gates(p, "ifgo", x, hidden * s["h"])
    i, f = np.exp(z["i"]), sigmoid(z["f"])
    c = f * np.exp(s["m"]) * s["scaled_c"] + i * np.tanh(z["g"]) * update
    n = f * np.exp(s["m"]) * s["scaled_n"] + i
    h = sigmoid(z["o"]) * c / n
    return {"scaled_c": c, "scaled_n": n, "m": 0 * c, "h": h}, h


def mogrifier(p, x, s, hidden=1.0, update=1.0):
    """Five rounds."""
    h = hidden * s["h"]
    x = 2 * sigmoid(h @ p["w_mutual_1"]) * x
    h = 2 * sigmoid(x @ p["w_mutual_2"]) * h
    x = 2 * sigmoid(h @ p["w_mutual_3"]) * x
    h = 2 * sigmoid(x @ p["w_mutual_4"]) * h
    x = 2 * sigmoid(h @ p["w_mutual_5"]) * x
    return lstm(p, x, {"c": s["c"], "h": h}, update=update)


def gru(p, x, s, hidden=1.0, update=1.0):
    w_x, b, w_h = split(p["w_x"], "rzg"), split(p["b"], "rzg"), split(p["w_h"], "rz")
    r, z = (sigmoid(x @ w_x[n] + (hidden * s["h"]) @ w_h[n] + b[n]) for n in "rz")
    g = np.tanh(x @ w_x["g"] + (r * hidden * s["h"]) @ p["w_g"] + b["g"])
    h = z * s["h"] + (1 - z) * g * update
    return {"h": h}, h


def gru_reset_after(p, x, s, hidden=1.0, update=1.0):
    w_x, b, w_h = split(p["w_x"], "rzg"), split(p["b"], "rzg"), split(p["w_h"], "rzg")
    before = hidden * s["h"]
    r, z = (sigmoid(x @ w_x[n] + before @ w_h[n] + b[n]) for n in "rz")
    g = np.tanh(x @ w_x["g"] + b["g"] + r * (before @ w_h["g"] + p["b_h"]))
    h = z * s["h"] + (1 - z) * g * update
    return {"h": h}, h


def norm(u):
    centred = u - u.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)


def normalised_gates(p, names, x, h):
    return split(p["gain_x"] * norm(x @ p["w_x"]) + p["gain_h"] * norm(h @ p["w_h"]) + p["b_z"], names)


def lstm_norm(p, x, s, hidden=1.0, update=1.0):
    z = normalised_gates(p, "ifgo", x, hidden * s["h"])
    c = sigmoid(z["f"]) * s["c"] + sigmoid(z["i"]) * np.tanh(z["g"]) * update
    h = sigmoid(z["o"]) * np.tanh(p["gain_c"] * norm(c) + p["b_c"])
    return {"c": c, "h": h}, h


def lstm_coupled_norm(p, x, s, hidden=1.0, update=1.0):
    z = normalised_gates(p, "igo", x, hidden * s["h"])
    c = (1 - sigmoid(z["i"])) * s["c"] + sigmoid(z["i"]) * np.tanh(z["g"]) * update
    h = sigmoid(z["o"]) * np.tanh(p["gain_c"] * norm(c) + p["b_c"])
    return {"c": c, "h": h}, h


def gru_norm(p, x, s, hidden=1.0, update=1.0):
    w_x, w_h, b = (split(p[name], "rzg") for name in ("w_x", "w_h", "b_z"))
    a_x, a_h = split(p["gain_x"], "rzg"), split(p["gain_h"], "rzg")
    before, rz = hidden * s["h"], ("r", "z")
    side_x = split(norm(np.concatenate([x @ w_x[n] for n in rz], axis=-1)), rz)
    side_h = split(norm(np.concatenate([before @ w_h[n] for n in rz], axis=-1)), rz)
    r, z = (sigmoid(a_x[n] * side_x[n] + a_h[n] * side_h[n] + b[n]) for n in rz)
    candidate = a_h["g"] * norm(before @ w_h["g"]) + p["b_h"]
    g = np.tanh(a_x["g"] * norm(x @ w_x["g"]) + b["g"] + r * candidate)
    h = z * s["h"] + (1 - z) * g * update
    return {"h": h}, h


def mgu(p, x, s, hidden=1.0, update=1.0):
    w_x, b = split(p["w_x"], "fg"), split(p["b"], "fg")
    f = sigmoid(x @ w_x["f"] + (hidden * s["h"]) @ p["w_h"] + b["f"])
    g = np.tanh(x @ w_x["g"] + (f * hidden * s["h"]) @ p["w_g"] + b["g"])
    h = (1 - f) * s["h"] + f * g * update
    return {"h": h}, h


def min_gru(p, x, s, hidden=1.0, update=1.0):
    z, g = np.split(x @ p["w_x"] + p["b"], 2, axis=-1)
    z = sigmoid(z)
    h = (1 - z) * s["h"] + z * g * update
    return {"h": h}, h


def min_lstm(p, x, s, hidden=1.0, update=1.0):
    i, f, g = np.split(x @ p["w_x"] + p["b"], 3, axis=-1)
    i, f = sigmoid(i), sigmoid(f)
    h = f / (f + i) * s["h"] + i / (f + i) * g * update
    return {"h": h}, h


def lru(p, x, s, hidden=1.0, update=1.0):
    """Real and imaginary parts are separate: complex numbers serve for derivatives here."""
    size, angle = np.exp(-np.exp(p["ring"])), np.exp(p["phase"])
    re, im = size * np.cos(angle), size * np.sin(angle)
    scale = np.sqrt(1 - size**2)
    real = re * s["real"] - im * s["imaginary"] + scale * (x @ p["w_real"])
    imaginary = re * s["imaginary"] + im * s["real"] + scale * (x @ p["w_imaginary"])
    y = real @ p["c_real"] - imaginary @ p["c_imaginary"] + x @ p["w_skip"]
    value, gate = np.split(y @ p["w_glu"] + p["b"], 2, axis=-1)
    return {"real": real, "imaginary": imaginary}, value * sigmoid(gate)


STEPS = {
    "elman_sigmoid": elman(sigmoid),
    "elman_tanh": elman(np.tanh),
    "elman_relu": elman(relu),
    "elman_sigmoid_two_biases": elman_two_biases,
    "jordan": jordan,
    "jordan_softmax": jordan_softmax,
    "lstm": lstm,
    "lstm_unfused": lstm_unfused,
    "lstm_1997": lstm_1997,
    "lstm_peephole": lstm_peephole,
    "lstm_coupled": lstm_coupled,
    "lstm_projection": lstm_projection,
    "lstm_book_gradient": lstm_book_gradient,
    "slstm": slstm,
    "mogrifier": mogrifier,
    "gru": gru,
    "gru_reset_after": gru_reset_after,
    "mgu": mgu,
    "lstm_norm": lstm_norm,
    "lstm_coupled_norm": lstm_coupled_norm,
    "gru_norm": gru_norm,
    "min_gru": min_gru,
    "min_lstm": min_lstm,
    "lru": lru,
}


def loop(step, p, x, state, hidden=1.0, update=None):
    """x [T, B, D] -> (state after the last step, outputs [T, B, H])."""
    outputs = []
    for t in range(len(x)):
        state, h = step(p, x[t], state, hidden, 1.0 if update is None else update[t])
        outputs.append(h)
    return state, np.array(outputs)


def complex_step(function, arguments):
    """Gradient of an analytic function(arguments) -> number, to float64's full precision.

    arguments: nested dicts and lists of arrays
    """
    arguments = widen(copy.deepcopy(arguments))

    def walk(node):
        if isinstance(node, dict):
            return {name: walk(value) for name, value in node.items()}
        if isinstance(node, list):
            return [walk(value) for value in node]
        gradient = np.zeros(node.shape)
        for index in np.ndindex(node.shape):
            node[index] += 1j * EPSILON
            gradient[index] = function(arguments).imag / EPSILON
            node[index] = node[index].real
        return gradient

    return walk(arguments)


def widen(tree):
    """The same tree with complex numbers."""
    if isinstance(tree, dict):
        return {name: widen(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [widen(value) for value in tree]
    return np.array(tree, np.complex128)
