"""Weights in and out: PyTorch's own log-probabilities, bitwise round trips, and errors for damaged files."""

import json

import jax
import numpy as np
import pytest
import tiny

from experiments import export, import_weights
from lm import weights
from lm.errors import UserError
from lm.loop import Trainer
from lm.metrics import prepare_workdir
from lm.model import init_parameters, make_model

V, D, H = 7, 4, 5
MODULES = {"lstm": "LSTM", "gru_reset_after": "GRU", "elman_tanh": "RNN", "elman_relu": "RNN"}


def our_model(cell, hidden, output="dense"):
    config = tiny.config(
        model__cell=cell, model__input="embedding", model__embedding_size=D, model__hidden=hidden, model__output=output
    )
    model = make_model(config, V)
    return model, init_parameters(model, jax.random.key(0))


def torch_rnn(torch, cell, inputs, units, layers=1):
    options = {"nonlinearity": cell.removeprefix("elman_")} if cell.startswith("elman") else {}
    return getattr(torch.nn, MODULES[cell])(inputs, units, layers, **options)


def torch_language_model(torch, cell, hidden, awd, tied=False):
    """(state dict as NumPy, function tokens [T, B] -> log-probabilities [T, B, V]) with random weights."""
    torch.manual_seed(3)
    encoder, decoder = torch.nn.Embedding(V, D), torch.nn.Linear(hidden[-1], V)
    if tied:
        decoder.weight = encoder.weight
    if awd:
        sizes = [D, *hidden]
        layers = [torch_rnn(torch, cell, a, b) for a, b in zip(sizes, hidden, strict=False)]
    else:
        layers = [torch_rnn(torch, cell, D, hidden[0], len(hidden))]
    state = {"encoder.weight": encoder.weight, "decoder.weight": decoder.weight, "decoder.bias": decoder.bias}
    for index, layer in enumerate(layers):
        for name, x in layer.state_dict().items():
            state[f"rnns.{index}.module.{name}" if awd else f"rnn.{name}"] = x
    if awd:  # what a weight-drop leaves: the trained matrix under _raw, a dropped copy beside it
        for index in range(len(layers)):
            name = f"rnns.{index}.module.weight_hh_l0"
            state[f"{name}_raw"], state[name] = state[name], state[name] * 0

    def log_probabilities(tokens):
        x = encoder(torch.from_numpy(tokens).long())
        for layer in layers:
            x, _ = layer(x)
        return torch.log_softmax(decoder(x), -1).detach().numpy()

    return {name: x.detach().numpy().copy() for name, x in state.items()}, log_probabilities


@pytest.mark.parametrize("awd", [False, True], ids=["word_language_model", "awd_lstm_lm"])
@pytest.mark.parametrize("cell", list(MODULES))
def test_log_probabilities_are_torchs(cell, awd):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    hidden = (6, H) if awd else (H, H)
    state, log_probabilities = torch_language_model(torch, cell, hidden, awd)
    assert weights.layout_of(state) == ("awd_lstm_lm" if awd else "word_language_model")
    model, template = our_model(cell, hidden)
    parameters = weights.convert(state, template, cell)
    tokens = np.random.default_rng(0).integers(0, V, (11, 2))
    _, logits = model.apply({"params": parameters}, tokens.astype(np.int32), model.initial_carry(2))
    np.testing.assert_allclose(jax.nn.log_softmax(logits), log_probabilities(tokens), atol=1e-5)


def test_tied_weights_stay_tied():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    state, log_probabilities = torch_language_model(torch, "lstm", (D,), awd=False, tied=True)
    model, template = our_model("lstm", (D,), output="tied")
    parameters = weights.convert(state, template, "lstm")
    assert "output_kernel" not in parameters
    tokens = np.random.default_rng(1).integers(0, V, (5, 3))
    _, logits = model.apply({"params": parameters}, tokens.astype(np.int32), model.initial_carry(3))
    np.testing.assert_allclose(jax.nn.log_softmax(logits), log_probabilities(tokens), atol=1e-5)
    state["decoder.weight"] = state["decoder.weight"] + 1
    with pytest.raises(UserError, match=r"but encoder.* differ in the file"):
        weights.convert(state, template, "lstm")


def fake_state(units=H, layers=1, gates=4):
    """A word_language_model state dict of zeros, without torch."""
    state = {"encoder.weight": (V, D), "decoder.weight": (V, units), "decoder.bias": (V,)}
    for layer in range(layers):
        inputs = D if layer == 0 else units
        state |= {
            f"rnn.weight_ih_l{layer}": (gates * units, inputs),
            f"rnn.weight_hh_l{layer}": (gates * units, units),
            f"rnn.bias_ih_l{layer}": (gates * units,),
            f"rnn.bias_hh_l{layer}": (gates * units,),
        }
    rng = np.random.default_rng(2)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in state.items()}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (fake_state(units=H + 1), "layer_0.b is 24 in the file and 20 in the model"),
        (fake_state(layers=2), "layer_1.b is 20 in the file and absent in the model"),
        (fake_state(gates=3), r"weight_hh has 15 rows for 5 units; config.model.cell=lstm \(torch's LSTM\) has 4"),
        ({k: v for k, v in fake_state().items() if k != "rnn.bias_hh_l0"}, "layer 0 has no bias_hh"),
        ({k: v for k, v in fake_state().items() if k != "decoder.bias"}, "the file has no decoder.bias"),
        (fake_state() | {"extra": np.zeros(1, np.float32)}, "unknown tensor extra"),
        ({"a": np.zeros(1, np.float32)}, "unknown layout; the file holds a"),
    ],
)
def test_files_that_do_not_fit_are_one_clear_error(state, message):
    _, template = our_model("lstm", (H,))
    with pytest.raises(UserError, match=message):
        weights.convert(state, template, "lstm")


def test_cells_that_torch_lacks_are_refused():
    _, template = our_model("lstm_peephole", (H,))
    with pytest.raises(UserError, match="cell=lstm_peephole has no PyTorch counterpart"):
        weights.convert(fake_state(), template, "lstm_peephole")


def test_a_file_in_another_vocabularys_order_is_put_in_ours(tmp_path):
    symbols = tuple("abcdefg")
    (tmp_path / "tokens.txt").write_text("g\nf\ne\nd\nc\nb\na\n")
    order = weights.vocabulary_order(str(tmp_path / "tokens.txt"), symbols)
    assert order.tolist() == [6, 5, 4, 3, 2, 1, 0]
    state = fake_state()
    _, template = our_model("lstm", (H,))
    parameters = weights.convert(state, template, "lstm", order)
    np.testing.assert_array_equal(parameters["embedding"][0], state["encoder.weight"][6])
    np.testing.assert_array_equal(parameters["output_kernel"][:, 1], state["decoder.weight"][5])
    assert parameters["output_bias"][2] == state["decoder.bias"][4]
    for content, message in (("a\nb\n", "has no 'c'"), ("a\nb\nc\nd\ne\nf\ng\ng\n", "8 tokens, 7 of them distinct")):
        (tmp_path / "tokens.txt").write_text(content)
        with pytest.raises(UserError, match=message):
            weights.vocabulary_order(str(tmp_path / "tokens.txt"), symbols)


@pytest.mark.parametrize(
    "content", [b"", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", b"not safetensors at all", b"\xff" * 64]
)
def test_damaged_files_are_one_clear_error(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"--weights=.*w\.safetensors: "):
        weights.read(str(path))


def test_a_truncated_export_and_another_type_are_refused(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "w.safetensors"
    save_file(fake_state(), str(path))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        weights.read(str(path))
    save_file({"x": np.zeros(3, np.float64)}, str(path))
    with pytest.raises(UserError, match="tensor x is float64; save it as float32"):
        weights.read(str(path))
    with pytest.raises(UserError, match="No such file"):
        weights.read(str(tmp_path / "none"))


def test_export_and_import_are_a_bitwise_round_trip(tmp_path, monkeypatch):
    """Through both experiments; the imported run scores exactly as the exported one."""
    corpus, config = tiny.corpus(), tiny.config()
    for module in (export, import_weights):
        monkeypatch.setattr(
            "experiments.evaluate.load_corpus" if module is export else "experiments.import_weights.load_corpus",
            lambda config, data_dir: corpus,
        )
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    prepare_workdir(first, config)
    trained = Trainer(config, corpus, first)
    trained.run()
    directory = export.run(config, first)
    with open(f"{directory}/config.json", encoding="utf-8") as file:
        assert json.load(file)["vocabulary"]["symbols"] == list(tiny.SYMBOLS)
    import_weights.run(config, second, weights=f"{directory}/model.safetensors")
    again = Trainer(config, corpus, second)
    assert again.resumed
    assert again.done == 0
    for ours, theirs in zip(jax.tree.leaves(trained.parameters), jax.tree.leaves(again.parameters), strict=True):
        np.testing.assert_array_equal(np.asarray(ours).view(np.uint32), np.asarray(theirs).view(np.uint32))
    assert trained.score(trained.state, "valid", "exact") == again.score(again.state, "valid", "exact")
    with pytest.raises(UserError, match="holds a run already"):
        import_weights.run(config, second, weights=f"{directory}/model.safetensors")
    with pytest.raises(UserError, match="needs --weights"):
        import_weights.run(config, second)
