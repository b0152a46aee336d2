"""Saves and loads weights as safetensors: in our layout, or (loading only) as state dicts of two PyTorch code bases.

    ours                 layer_0.w_x, output_kernel, ...: the paths of the model's parameters
    word_language_model  encoder.weight, rnn.weight_ih_l0, ..., decoder.weight (github.com/pytorch/examples)
    awd_lstm_lm          encoder.weight, rnns.0.module.weight_hh_l0_raw, ..., decoder.weight
                         (github.com/salesforce/awd-lstm-lm)

A .pt file is a pickle, which runs code when loaded. If you trust it, convert it next to the model.py that made it:

    import torch; from safetensors.torch import save_file; model = torch.load("model.pt", weights_only=False)
    save_file({k: v.float().contiguous().clone() for k, v in model.state_dict().items()}, "model.safetensors")

awd-lstm-lm saves a list, whose first item is the model: `model[0].state_dict()`.

Torch has our order of gates: i, f, g, o (LSTM) and r, z, g (GRU, with g named n). Its matrices are transposed. It has
two biases per layer; we store their sum, except for the candidate g of a GRU, which keeps both. The file of a tied
model has encoder.weight or decoder.weight, or two equal copies.
"""

import os
import re
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Float, Integer

from lm.data.text import Vocabulary
from lm.errors import UserError
from lm.model.language_model import LanguageModel

# Cell -> (gates, name of the PyTorch module).
TORCH_CELLS = {
    "lstm": (4, "LSTM"),
    "gru_reset_after": (3, "GRU"),
    "elman_tanh": (1, "RNN_TANH"),
    "elman_relu": (1, "RNN_RELU"),
}

_LAYER_NAME = {
    "word_language_model": re.compile(r"rnn\.(?P<part>(?:weight|bias)_[ih]h)_l(?P<layer>\d{1,3})(?P<raw>)"),
    "awd_lstm_lm": re.compile(
        r"rnns\.(?P<layer>\d{1,3})\.(?:module\.)?(?P<part>(?:weight|bias)_[ih]h)_l0(?P<raw>_raw)?"
    ),
}
_LAYER_PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class TorchModel(NamedTuple):
    """A PyTorch state dict, split into parts with consistent shapes.

    layers: weight_ih [GH, D], weight_hh [GH, H], bias_ih [GH] and bias_hh [GH] of each
    encoder, decoder: the same array if the file has only one of them, as for a tied model
    """

    gates: int
    encoder: Float[np.ndarray, "V E"]
    layers: tuple[dict[str, np.ndarray], ...]
    decoder: Float[np.ndarray, "V H"]
    decoder_bias: Float[np.ndarray, " V"]

    @property
    def hidden(self) -> tuple[int, ...]:
        """Units of each layer."""
        return tuple(layer["weight_hh"].shape[1] for layer in self.layers)


# --- Files ------------------------------------------------------------------------------------------------------


def save_weights(path: str, parameters: dict, vocabulary: Vocabulary):
    """Writes parameters in our layout to a safetensors file, with a fingerprint of their vocabulary.

    Raises UserError if the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    tensors = {name: np.ascontiguousarray(x) for name, x in flatten_dict(parameters, sep=".").items()}
    try:
        save_file(tensors, path, metadata={"layout": "ours", "vocabulary_sha256": vocabulary.digest})
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error


def read_tensors(path: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns (all tensors of a safetensors file, its metadata). Raises UserError if it is damaged or not float32."""
    from safetensors import SafetensorError, safe_open

    if not os.path.isfile(path):
        raise UserError("no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                if (dtype := file.get_slice(name).get_dtype()) != "F32":
                    raise UserError(f"tensor {name} is of type {dtype}; save it as float32 (F32)")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            for name, tensor in tensors.items():
                if not np.isfinite(tensor).all():
                    raise UserError(f"tensor {name} holds numbers that are not finite")
            metadata = file.metadata() or {}
    except (OSError, SafetensorError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot be read as safetensors: {reason}") from error
    if not tensors:
        raise UserError("holds no tensors")
    return tensors, metadata


def layout_of(tensors: dict[str, np.ndarray], model: Any) -> str:
    """Detects the layout from the tensors' names. Raises UserError if it is unknown."""
    prefixes = {name.partition(".")[0] for name in tensors}
    for prefix, layout in (("rnns", "awd_lstm_lm"), ("rnn", "word_language_model")):
        if prefix in prefixes:
            return layout
    if prefixes & shapes_of(model).keys():
        return "ours"
    raise UserError(f"unknown layout; the file holds {', '.join(sorted(tensors)[:4])}, ...")


# --- Into our parameters ----------------------------------------------------------------------------------------


def load_weights(
    path: str, model: Any, vocabulary: Vocabulary, order: Integer[np.ndarray, " V"] | None = None
) -> tuple[dict, str]:
    """Reads a file of any layout. Returns (parameters of `model`, the layout).

    vocabulary: the corpus's; order: row of each of its tokens in a PyTorch file, or None for the same order
    Raises UserError, naming the file and the wrong tensor or config key, if file, model and vocabulary do not match.
    """
    try:
        tensors, metadata = read_tensors(path)
        layout = layout_of(tensors, model)
        if layout == "ours":
            if order is not None:
                raise UserError("accepts no vocabulary file: the vocabulary of this export is in its config.json")
            if metadata.get("vocabulary_sha256", vocabulary.digest) not in vocabulary.digests:
                raise UserError("was exported with another vocabulary than the corpus's (config.data.corpus)")
        return convert(tensors, model, order), layout
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def convert(tensors: dict[str, np.ndarray], model: Any, order: Integer[np.ndarray, " V"] | None = None) -> dict:
    """Converts tensors of any layout into nested parameters of `model`. Arguments and errors as in `load_weights`."""
    layout = layout_of(tensors, model)
    if layout != "ours":
        torch = torch_model(tensors, layout)
        check_model(model, torch)
        tensors = from_torch(torch, model.config.cell, model.config.output == "tied", order)
    wanted = {name: x.shape for name, x in flatten_dict(shapes_of(model), sep=".").items()}
    found = {name: x.shape for name, x in tensors.items()}
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            raise UserError(
                f"tensor {name} is {_shape(found.get(name))} in the file and {_shape(wanted.get(name))} in the model; "
                "config.model must match the export's config.json"
            )
    return unflatten_dict(tensors, sep=".")


def shapes_of(model: Any) -> dict:
    """Parameters of a model as ShapeDtypeStructs."""
    return jax.eval_shape(model.draw, jax.random.key(0))


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else "x".join(map(str, shape)) or "a scalar"


def check_model(model: LanguageModel, torch: TorchModel):
    """Raises UserError if the config does not fit the file, naming each wrong key, its value and the allowed values."""
    config, (symbols, embedding_size) = model.config, torch.encoder.shape
    if symbols != model.vocabulary_size:
        raise UserError(f"the file has {symbols} tokens, the corpus (config.data.corpus) has {model.vocabulary_size}")
    if config.cell not in TORCH_CELLS:
        known = ", ".join(TORCH_CELLS)
        raise UserError(f"config.model.cell={config.cell} has no PyTorch counterpart; cells that have one: {known}")
    cells = [name for name, (gates, _) in TORCH_CELLS.items() if gates == torch.gates]
    outputs = ["dense", "tied"] if np.array_equal(torch.encoder, torch.decoder) else ["dense"]
    if torch.encoder is torch.decoder:
        outputs = ["tied"]
    differences = [
        f"config.model.{key} is {config[key]} and must be {' or '.join(map(str, allowed))}"
        for key, allowed in (
            ("cell", cells),
            ("input", ["embedding"]),
            ("embedding_size", [embedding_size]),
            ("hidden", [torch.hidden]),
            ("output", outputs),
            ("initial_carry", ["zeros"]),
        )
        if config[key] not in allowed
    ]
    if differences:
        raise UserError(f"the config does not fit the file: {'; '.join(differences)}")


def torch_model(tensors: dict[str, np.ndarray], layout: str) -> TorchModel:
    """Converts a PyTorch state dict. Raises UserError for missing, unknown or duplicate tensors, and wrong shapes."""
    names, rest = _layer_names(tensors, layout)
    known = ("encoder.weight", "decoder.weight", "decoder.bias")
    if unknown := sorted(rest - set(known)):
        raise UserError(f"unknown tensor {unknown[0]} in a {layout} file")
    count = 1 + max((layer for layer, _ in names), default=-1)
    for place in ((layer, part) for layer in range(count) for part in _LAYER_PARTS):
        if place not in names:
            raise UserError(f"the file has no {place[1]} of layer {place[0]}")
    if "decoder.bias" not in rest or len(rest) == 1:
        raise UserError(f"the file has no {'decoder.weight' if 'decoder.bias' in rest else 'decoder.bias'}")
    encoder, decoder = known[:2] if len(rest) == 3 else 2 * sorted(rest - {"decoder.bias"})
    gates = _check_shapes(tensors, [[names[i, part] for part in _LAYER_PARTS] for i in range(count)], encoder, decoder)
    layers = tuple({part: tensors[names[i, part]] for part in _LAYER_PARTS} for i in range(count))
    return TorchModel(gates, tensors[encoder], layers, tensors[decoder], tensors["decoder.bias"])


def _layer_names(tensors: dict[str, np.ndarray], layout: str) -> tuple[dict[tuple[int, str], str], set[str]]:
    """Returns ({(layer, part): name}, all other names). Prefers a trained _raw matrix to its copy after weight drop."""
    matches = {name: match for name in sorted(tensors) if (match := _LAYER_NAME[layout].fullmatch(name))}
    place = {name: (int(match["layer"]), match["part"]) for name, match in matches.items()}
    raw = {place[name] for name, match in matches.items() if match["raw"]}
    names = {}
    for name, match in matches.items():
        if place[name] in raw and not match["raw"]:
            continue
        if place[name] in names:
            raise UserError(f"tensors {names[place[name]]} and {name} are the same weights")
        names[place[name]] = name
    return names, tensors.keys() - matches.keys()


def _check_shapes(tensors: dict[str, np.ndarray], layers: list[list[str]], encoder: str, decoder: str) -> int:
    """Returns the number of gates. Raises UserError for inconsistent shapes. layers: names in the order of _LAYER_PARTS

    Every shape is checked, since broadcasting would turn a short bias into plausible weights.
    """
    for name in (encoder, decoder, *(weight for layer in layers for weight in layer[:2])):
        if tensors[name].ndim != 2 or 0 in tensors[name].shape:
            raise UserError(f"tensor {name} is {_shape(tensors[name].shape)}; it should be a matrix")
    symbols, inputs = tensors[encoder].shape
    first = layers[0][1]
    gates = tensors[first].shape[0] / tensors[first].shape[1]
    if gates not in {number for number, _ in TORCH_CELLS.values()}:
        raise UserError(f"tensor {first} is {_shape(tensors[first].shape)}, which fits no RNN, LSTM or GRU")
    wanted = {}
    for weight_ih, weight_hh, bias_ih, bias_hh in layers:
        units = tensors[weight_hh].shape[1]
        rows = int(gates) * units
        wanted |= {weight_hh: (rows, units), weight_ih: (rows, inputs), bias_ih: (rows,), bias_hh: (rows,)}
        inputs = units
    for name, shape in (wanted | {decoder: (symbols, inputs), "decoder.bias": (symbols,)}).items():
        if tensors[name].shape != shape:
            found = _shape(tensors[name].shape)
            raise UserError(f"tensor {name} is {found}; to fit the others, it should be {_shape(shape)}")
    return int(gates)


def from_torch(
    model: TorchModel, cell: str, tied: bool, order: Integer[np.ndarray, " V"] | None
) -> dict[str, np.ndarray]:
    """Converts a PyTorch model that has passed `check_model` into our flat parameters, with the symbols in `order`."""
    rows = slice(None) if order is None else order
    parameters = {"embedding": model.encoder[rows], "output_bias": model.decoder_bias[rows]}
    if not tied:
        parameters["output_kernel"] = model.decoder[rows].T
    for index, layer in enumerate(model.layers):
        for name, x in _layer_from_torch(layer, cell).items():
            parameters[f"layer_{index}.{name}"] = x
    return parameters


def _layer_from_torch(layer: dict[str, np.ndarray], cell: str) -> dict[str, np.ndarray]:
    converted = {"w_x": layer["weight_ih"].T, "w_h": layer["weight_hh"].T}
    both = layer["bias_ih"] + layer["bias_hh"]
    if cell != "gru_reset_after":
        return converted | {"b": both}
    split = 2 * layer["weight_hh"].shape[1]  # one bias for r and z; the candidate keeps two, since r multiplies one
    return converted | {"b": np.append(both[:split], layer["bias_ih"][split:]), "b_h": layer["bias_hh"][split:]}


# --- The file's vocabulary --------------------------------------------------------------------------------------


def vocabulary_order(path: str, symbols: tuple[str, ...]) -> Integer[np.ndarray, " V"]:
    """Row of each of our symbols in a file with one token per line. Raises UserError if the tokens differ."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            theirs = file.read().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    theirs = theirs[:-1] if theirs[-1] == "" else theirs
    index = {token: row for row, token in enumerate(theirs)}
    if missing := [symbol for symbol in symbols if symbol not in index]:
        raise UserError(f"{path}: lacks the corpus's token {missing[0]!r}")
    if len(index) != len(theirs) or len(theirs) != len(symbols):
        raise UserError(
            f"{path}: has {len(theirs)} tokens, {len(index)} of them distinct; the corpus has {len(symbols)}"
        )
    return np.array([index[symbol] for symbol in symbols])
