"""Weights in and out as safetensors: our own layout, and the state dicts of two PyTorch code bases.

    ours                 layer_0.w_x, output_kernel, ...: the paths of the model's parameters
    word_language_model  encoder.weight, rnn.weight_ih_l0, ..., decoder.weight (github.com/pytorch/examples)
    awd_lstm_lm          encoder.weight, rnns.0.module.weight_hh_l0_raw, ..., decoder.weight
                         (github.com/salesforce/awd-lstm-lm)

A .pt file is a pickle, which runs code when it is read, so it is converted where it is trusted:

    import torch; from safetensors.torch import save_file
    save_file({k: v.contiguous().clone() for k, v in torch.load("model.pt").state_dict().items()}, "model.safetensors")

torch's gates stand in the order i, f, g, o (LSTM) and r, z, n (GRU), which are ours; its matrices are transposed, and
it has two biases per layer, whose sum is ours but for the candidate of a GRU.
"""

import re
from typing import NamedTuple

import flax.traverse_util
import numpy as np

from lm.errors import UserError

# Cell -> (gates, name of the PyTorch module).
TORCH_CELLS = {
    "lstm": (4, "LSTM"),
    "gru_reset_after": (3, "GRU"),
    "elman_tanh": (1, "RNN_TANH"),
    "elman_relu": (1, "RNN_RELU"),
}

_LAYER_NAME = {
    "word_language_model": re.compile(r"rnn\.(weight_ih|weight_hh|bias_ih|bias_hh)_l(\d+)()$"),
    "awd_lstm_lm": re.compile(r"rnns\.(?P<layer>\d+)\.(?:module\.)?(weight_ih|weight_hh|bias_ih|bias_hh)_l0(_raw)?$"),
}
_LAYER_PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class TorchModel(NamedTuple):
    """A state dict by part: encoder [V, D]; layers: weight_ih [G*H, D], weight_hh [G*H, H], biases [G*H];
    decoder [V, H] and its bias [V]."""

    encoder: np.ndarray
    layers: tuple[dict[str, np.ndarray], ...]
    decoder: np.ndarray
    decoder_bias: np.ndarray


# --- Files ------------------------------------------------------------------------------------------------------


def flat(parameters: dict) -> dict[str, np.ndarray]:
    """Nested parameters -> {"layer_0.w_x": array}."""
    return {name: np.asarray(x) for name, x in flax.traverse_util.flatten_dict(parameters, sep=".").items()}


def write(path: str, parameters: dict):
    """Writes parameters to a safetensors file. Raises UserError where that cannot be written."""
    from safetensors.numpy import save_file

    tensors = {name: np.ascontiguousarray(x) for name, x in flat(parameters).items()}
    try:
        save_file(tensors, path, metadata={"layout": "ours"})
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def read(path: str) -> dict[str, np.ndarray]:
    """All tensors of a safetensors file. Raises UserError where it is none, is damaged or is not of float32."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(f"--weights={path}: cannot be read as safetensors: {reason}") from error
    if not tensors:
        raise UserError(f"--weights={path}: holds no tensors")
    for name, x in tensors.items():
        if x.dtype != np.float32:
            raise UserError(f"--weights={path}: tensor {name} is {x.dtype}; save it as float32")
    return tensors


def layout_of(tensors: dict[str, np.ndarray]) -> str:
    """The layout that the names tell. Raises UserError for names of none."""
    if "encoder.weight" not in tensors and "output_bias" not in tensors and "output_kernel" not in tensors:
        raise UserError(f"--weights: unknown layout; the file holds {', '.join(list(tensors)[:4])}, ...")
    if "encoder.weight" not in tensors:
        return "ours"
    return "awd_lstm_lm" if any(name.startswith("rnns.") for name in tensors) else "word_language_model"


# --- Into our parameters ----------------------------------------------------------------------------------------


def convert(tensors: dict[str, np.ndarray], template: dict, cell: str, order: np.ndarray | None = None) -> dict:
    """Tensors of any layout -> parameters of the shapes of `template` (nested; arrays or ShapeDtypeStructs).

    cell: config.model.cell; order [V]: row of the file's vocabulary for each of our tokens, None where they agree.
    Raises UserError naming the tensor, and both shapes, where file and model differ.
    """
    layout = layout_of(tensors)
    ours = (
        tensors
        if layout == "ours"
        else from_torch(torch_model(tensors, layout), cell, tied="output_kernel" not in template)
    )
    if order is not None and layout != "ours":
        ours = reorder(ours, order)
    wanted = {name: tuple(x.shape) for name, x in flax.traverse_util.flatten_dict(template, sep=".").items()}
    found = {name: x.shape for name, x in ours.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise UserError(
                f"--weights: {name} is {_shape(found, name)} in the file and {_shape(wanted, name)} in the model; "
                "config.model.cell, hidden, embedding_size and output must be those of the file"
            )
    return flax.traverse_util.unflatten_dict(ours, sep=".")


def _shape(shapes: dict, name: str) -> str:
    return "x".join(map(str, shapes[name])) if name in shapes else "absent"


def torch_model(tensors: dict[str, np.ndarray], layout: str) -> TorchModel:
    """Sorts a PyTorch state dict by part. Raises UserError for missing or unknown tensors."""
    layers: dict[int, dict[str, np.ndarray]] = {}
    rest = {}
    for name in sorted(tensors):  # a weight-drop's _raw matrix is the trained one, and sorts after its dropped copy
        match = _LAYER_NAME[layout].match(name)
        if match is None:
            rest[name] = tensors[name]
        elif layout == "awd_lstm_lm":
            layers.setdefault(int(match["layer"]), {})[match[2]] = tensors[name]
        else:
            layers.setdefault(int(match[2]), {})[match[1]] = tensors[name]
    if sorted(layers) != list(range(len(layers))) or not layers:
        raise UserError(f"--weights: recurrent layers {sorted(layers)} of a {layout} file; expected 0, 1, ...")
    for index, layer in layers.items():
        if missing := [part for part in _LAYER_PARTS if part not in layer]:
            raise UserError(f"--weights: layer {index} has no {' and no '.join(missing)}")
    names = ("encoder.weight", "decoder.weight", "decoder.bias")
    if missing := [name for name in names if name not in rest]:
        raise UserError(f"--weights: the file has no {missing[0]}")
    if unknown := [name for name in rest if name not in names]:
        raise UserError(f"--weights: unknown tensor {unknown[0]} in a {layout} file")
    return TorchModel(rest[names[0]], tuple(layers[i] for i in range(len(layers))), rest[names[1]], rest[names[2]])


def from_torch(model: TorchModel, cell: str, tied: bool) -> dict[str, np.ndarray]:
    """A PyTorch model -> our flat parameters. Raises UserError where the cell or the tying do not fit."""
    if cell not in TORCH_CELLS:
        raise UserError(
            f"config.model.cell={cell} has no PyTorch counterpart; those that have: {', '.join(TORCH_CELLS)}"
        )
    if tied and not np.array_equal(model.encoder, model.decoder):
        raise UserError("config.model.output=tied, but encoder.weight and decoder.weight differ in the file: use dense")
    parameters = {"embedding": model.encoder, "output_bias": model.decoder_bias}
    if not tied:
        parameters["output_kernel"] = model.decoder.T
    for index, layer in enumerate(model.layers):
        for name, x in _layer_from_torch(layer, index, cell).items():
            parameters[f"layer_{index}.{name}"] = x
    return parameters


def _layer_from_torch(layer: dict[str, np.ndarray], index: int, cell: str) -> dict[str, np.ndarray]:
    gates, module = TORCH_CELLS[cell]
    rows, units = layer["weight_hh"].shape if layer["weight_hh"].ndim == 2 else (0, 1)
    if rows != gates * units:
        raise UserError(
            f"--weights: layer {index}'s weight_hh has {rows} rows for {units} units; config.model.cell={cell} "
            f"(torch's {module}) has {gates} gates"
        )
    converted = {"w_x": layer["weight_ih"].T, "w_h": layer["weight_hh"].T}
    both = layer["bias_ih"] + layer["bias_hh"]
    if cell != "gru_reset_after":
        return converted | {"b": both}
    split = 2 * units  # r and z have one bias; the candidate's recurrent one stays inside its reset
    return converted | {"b": np.append(both[:split], layer["bias_ih"][split:]), "b_h": layer["bias_hh"][split:]}


def reorder(parameters: dict[str, np.ndarray], order: np.ndarray) -> dict[str, np.ndarray]:
    """Flat parameters with the file's vocabulary put in our order [V]."""
    moved = dict(parameters)
    moved["embedding"] = parameters["embedding"][order]
    moved["output_bias"] = parameters["output_bias"][order]
    if "output_kernel" in parameters:
        moved["output_kernel"] = parameters["output_kernel"][:, order]
    return moved


def vocabulary_order(path: str, symbols: tuple[str, ...]) -> np.ndarray:
    """Row in the file's vocabulary, one token a line, of each of our symbols [V]. Raises UserError if they differ."""
    try:
        with open(path, encoding="utf-8") as file:
            theirs = file.read().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--vocabulary={path}: cannot be read: {error}") from error
    theirs = theirs[:-1] if theirs[-1] == "" else theirs
    index = {token: row for row, token in enumerate(theirs)}
    if missing := [symbol for symbol in symbols if symbol not in index]:
        raise UserError(f"--vocabulary={path}: has no {missing[0]!r}, which the corpus has")
    if len(index) != len(theirs) or len(theirs) != len(symbols):
        raise UserError(
            f"--vocabulary={path}: has {len(theirs)} tokens, {len(index)} of them distinct, the corpus {len(symbols)}"
        )
    return np.array([index[symbol] for symbol in symbols])
