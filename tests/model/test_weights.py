"""Saving and loading weights: PyTorch's log-probabilities, bitwise round trips, errors for damaged files."""

import json

import jax
import numpy as np
import pytest

from experiments import export, import_weights
from lm.data.text import Vocabulary
from lm.errors import UserError
from lm.model import weights
from lm.model.language_model import make_model
from lm.runs import lock
from lm.runs.workdir import prepare_workdir
from lm.training.loop import Trainer
from lm.training.recorder import Recorder
from lm.training.setup import make_setup
from tests.helpers import tiny

V, D, H = 7, 4, 5
VOCABULARY = Vocabulary("char", tuple(tiny.SYMBOLS))
MODULES = {"lstm": "LSTM", "gru_reset_after": "GRU", "elman_tanh": "RNN", "elman_relu": "RNN"}


def our_model(cell="lstm", hidden=(H,), symbols=V, **changes):
    changes = {"embedding_size": D, "input": "embedding"} | changes
    changes = {f"model__{key}": value for key, value in changes.items()}
    return make_model(tiny.config(model__cell=cell, model__hidden=hidden, **changes), symbols)


def our_log_probabilities(model, parameters, tokens):
    _, logits = jax.jit(model.apply)({"params": parameters}, tokens.astype(np.int32), model.initial_carry(2))
    return jax.nn.log_softmax(logits)


def torch_rnn(torch, cell, inputs, units, layers=1):
    options = {"nonlinearity": cell.removeprefix("elman_")} if cell.startswith("elman") else {}
    return getattr(torch.nn, MODULES[cell])(inputs, units, layers, **options)


def torch_language_model(torch, cell, hidden, awd, tied=False):
    """(state dict in NumPy, function tokens [T, B] -> log-probabilities [T, B, V]) with random weights."""
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
    if awd:  # weight-drop saves the trained matrix as _raw, and a dropped copy
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
def test_log_probabilities_match_torch(cell, awd):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    hidden = (6, H) if awd else (H, H)
    state, log_probabilities = torch_language_model(torch, cell, hidden, awd)
    model = our_model(cell, hidden)
    assert weights.layout_of(state, model) == ("awd_lstm_lm" if awd else "word_language_model")
    parameters = weights.convert(state, model)
    tokens = np.random.default_rng(0).integers(0, V, (11, 2))
    ours = our_log_probabilities(model, parameters, tokens)
    np.testing.assert_allclose(ours, log_probabilities(tokens), rtol=0, atol=1e-5)


@pytest.mark.parametrize("missing", [None, "encoder.weight", "decoder.weight"])
def test_tied_weights_stay_tied(missing):
    """Also if safetensors.torch.save_model has omitted one of two shared matrices."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    state, log_probabilities = torch_language_model(torch, "lstm", (D,), awd=False, tied=True)
    state.pop(missing, None)
    model = our_model(hidden=(D,), output="tied")
    parameters = weights.convert(state, model)
    assert "output_kernel" not in parameters
    tokens = np.random.default_rng(1).integers(0, V, (5, 2))
    ours = our_log_probabilities(model, parameters, tokens)
    np.testing.assert_allclose(ours, log_probabilities(tokens), rtol=0, atol=1e-5)


def test_the_trained_recurrent_matrix_is_loaded_instead_of_its_dropped_copy():
    state = {name.replace("rnn.", "rnns.0."): x for name, x in fake_state().items()}
    trained = state["rnns.0.weight_hh_l0"]
    state |= {"rnns.0.module.weight_hh_l0_raw": trained, "rnns.0.weight_hh_l0": trained * 0}
    np.testing.assert_array_equal(weights.convert(state, our_model())["layer_0"]["w_h"], trained.T)


def fake_state(units=H, layers=1, gates=4):
    """A word_language_model state dict of random numbers, made without torch."""
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


def ones(*shape):
    return np.ones(shape, np.float32)


def without(name):
    return {other: x for other, x in fake_state().items() if other != name}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (without("rnn.bias_hh_l0"), "the file has no bias_hh of layer 0"),
        (without("decoder.bias"), "the file has no decoder.bias"),
        (fake_state(layers=3) | {"rnn.weight_ih_l4": ones(20, 5)}, "the file has no weight_ih of layer 3"),
        (fake_state() | {"extra": ones(1)}, "unknown tensor extra"),
        (fake_state() | {"rnn.weight_ih_l0_reverse": ones(20, 4)}, "unknown tensor rnn.weight_ih_l0_reverse"),
        (
            fake_state() | {"rnn.weight_ih_l00": ones(20, 4)},
            "rnn.weight_ih_l0 and rnn.weight_ih_l00 are the same",
        ),
        (fake_state() | {"rnn.bias_hh_l0": ones(1)}, "tensor rnn.bias_hh_l0 is 1; to fit the others, it should be 20"),
        (fake_state() | {"rnn.bias_hh_l0": ones(3)}, "tensor rnn.bias_hh_l0 is 3; to fit the others, it should be 20"),
        (fake_state() | {"rnn.weight_ih_l0": ones(20, 3)}, "rnn.weight_ih_l0 is 20x3; to fit .* should be 20x4"),
        (fake_state() | {"rnn.weight_hh_l0": ones(20)}, "rnn.weight_hh_l0 is 20; it should be a matrix"),
        (fake_state() | {"rnn.weight_hh_l0": ones(20, 0)}, "rnn.weight_hh_l0 is 20x0; it should be a matrix"),
        (fake_state(gates=2), "rnn.weight_hh_l0 is 10x5, which fits no RNN, LSTM or GRU"),
        (fake_state() | {"decoder.weight": ones(9, 5)}, "decoder.weight is 9x5; to fit the others, it should be 7x5"),
        (fake_state() | {"decoder.bias": ones(1)}, "decoder.bias is 1; to fit the others, it should be 7"),
        ({"a": ones(1)}, "unknown layout; the file holds a"),
    ],
)
def test_incomplete_or_inconsistent_files_end_in_one_clear_error(state, message):
    with pytest.raises(UserError, match=message):
        weights.convert(state, our_model())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": (4, 5)}, r"config.model.hidden is \(4, 5\) and must be \(5,\)"),
        (
            {"embedding_size": 3, "hidden": (6,)},
            r"embedding_size is 3 and must be 4; config.model.hidden is \(6,\) and",
        ),
        ({"cell": "gru_reset_after"}, "config.model.cell is gru_reset_after and must be lstm"),
        ({"cell": "elman_tanh"}, "config.model.cell is elman_tanh and must be lstm"),
        ({"cell": "lstm_peephole"}, "config.model.cell=lstm_peephole has no PyTorch counterpart"),
        ({"input": "one_hot"}, "config.model.input is one_hot and must be embedding"),
        ({"output": "tied", "hidden": (D,)}, r"hidden is \(4,\) and .*; config.model.output is tied and must be dense"),
        ({"output": "dense_without_bias"}, "config.model.output is dense_without_bias and must be dense"),
        ({"initial_carry": "first_unit_one"}, "config.model.initial_carry is first_unit_one and must be zeros"),
        ({"symbols": 9}, r"the file has 7 tokens, the corpus \(config.data.corpus\) has 9"),
    ],
)
def test_the_error_for_a_config_that_does_not_fit_says_what_would(changes, message):
    with pytest.raises(UserError, match=message):
        weights.convert(fake_state(), our_model(**changes))


def test_a_file_with_one_of_two_shared_matrices_needs_a_tied_config():
    state = fake_state(units=D)
    del state["decoder.weight"]
    with pytest.raises(UserError, match=r"config\.model\.output is dense and must be tied"):
        weights.convert(state, our_model(hidden=(D,)))


def test_rows_are_reordered_to_our_vocabulary(tmp_path):
    symbols = tuple("abcdefg")
    (tmp_path / "tokens.txt").write_text("g\nf\ne\nd\nc\nb\na\n")
    order = weights.vocabulary_order(str(tmp_path / "tokens.txt"), symbols)
    assert order.tolist() == [6, 5, 4, 3, 2, 1, 0]
    state = fake_state()
    parameters = weights.convert(state, our_model(), order)
    np.testing.assert_array_equal(parameters["embedding"][0], state["encoder.weight"][6])
    np.testing.assert_array_equal(parameters["output_kernel"][:, 1], state["decoder.weight"][5])
    assert parameters["output_bias"][2] == state["decoder.bias"][4]
    with pytest.raises(UserError, match=r"the file has 7 tokens, the corpus .* has 6"):  # no token is dropped silently
        weights.convert(state, our_model(symbols=6), order[1:])
    for content, message in (
        ("a\nb\n", "lacks the corpus's token 'c'"),
        ("a\nb\nc\nd\ne\nf\ng\ng\n", "8 tokens, 7 of them distinct"),
    ):
        (tmp_path / "tokens.txt").write_text(content)
        with pytest.raises(UserError, match=message):
            weights.vocabulary_order(str(tmp_path / "tokens.txt"), symbols)


@pytest.mark.parametrize(
    "content", [b"", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", b"not safetensors at all", b"\xff" * 64]
)
def test_damaged_files_end_in_one_clear_error(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"w\.safetensors: "):
        weights.load_weights(str(path), our_model(), VOCABULARY)


def test_truncated_files_and_other_types_are_rejected(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "w.safetensors"
    save_file(fake_state(), str(path))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        weights.read_tensors(str(path))
    save_file({"x": np.zeros(3, np.float64)}, str(path))
    with pytest.raises(UserError, match="tensor x is of type F64; save it as float32"):
        weights.read_tensors(str(path))
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(UserError, match="no such file"):
            weights.read_tensors(str(missing))


def test_types_unknown_to_numpy_are_rejected_by_name(tmp_path):
    header = b'{"x":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}'
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"00")
    with pytest.raises(UserError, match="tensor x is of type F8_E4M3; save it as float32"):
        weights.read_tensors(str(path))


def test_an_export_that_cannot_be_written_ends_in_one_clear_error(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .*none"):
        weights.save_weights(str(tmp_path / "none" / "w.safetensors"), {"a": np.zeros(2, np.float32)}, VOCABULARY)


def test_an_export_fits_only_its_own_model_and_vocabulary(tmp_path):
    path, (model, parameters) = str(tmp_path / "w.safetensors"), tiny.model()
    weights.save_weights(path, parameters, VOCABULARY)
    again, layout = weights.load_weights(path, model, VOCABULARY)
    assert layout == "ours"
    jax.tree.map(np.testing.assert_array_equal, parameters, again)
    other = Vocabulary("char", VOCABULARY.symbols[::-1])
    for message, arguments in (
        ("w.safetensors: was exported with another vocabulary", (model, other)),
        ("w.safetensors: accepts no vocabulary file", (model, VOCABULARY, np.arange(5))),
        ("tensor layer_0.b is 12 in the file and 16 in the model", (tiny.model(model__hidden=(4,))[0], VOCABULARY)),
        ("tensor layer_1.b is absent in the file", (tiny.model(model__hidden=(3, 3))[0], VOCABULARY)),
    ):
        with pytest.raises(UserError, match=message):
            weights.load_weights(path, *arguments)


def test_export_and_import_are_a_bitwise_round_trip(tmp_path, monkeypatch):
    """Runs both experiments: the imported run has exactly the scores of the exported one."""
    corpus, config = tiny.corpus(), tiny.config()
    monkeypatch.setattr("experiments.train.load_corpus", lambda *arguments: corpus)
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    prepare_workdir(first, config, corpus.vocabulary)
    trained = Trainer(Recorder(make_setup(config, corpus), first))
    trained.run()
    directory = export.run(config, first)
    with open(f"{directory}/config.json", encoding="utf-8") as file:
        assert json.load(file)["vocabulary"]["symbols"] == list(tiny.SYMBOLS)
    import_weights.run(config, second, weights=f"{directory}/model.safetensors")
    again = Trainer(Recorder(make_setup(config, corpus), second))
    assert again.recorder.resumed
    assert again.recorder.done == 0
    pairs = zip(jax.tree.leaves(trained.state.parameters), jax.tree.leaves(again.state.parameters), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_array_equal(np.asarray(ours).view(np.uint32), np.asarray(theirs).view(np.uint32))
    scores = [each.recorder.score(each.state, corpus.splits["valid"], "exact") for each in (trained, again)]
    assert scores[0] == scores[1]
    with pytest.raises(UserError, match="holds no best checkpoint"):
        export.run(config, first, checkpoint="best")
    with pytest.raises(UserError, match="holds a run already"):
        import_weights.run(config, second, weights=f"{directory}/model.safetensors")
    with pytest.raises(UserError, match="needs --weights"):
        import_weights.run(config, second)
    third = tmp_path / "third"
    third.mkdir()
    with lock.alone(third), pytest.raises(UserError, match="in use by another process"):
        import_weights.run(config, str(third), weights=f"{directory}/model.safetensors")
    assert [path.name for path in third.iterdir()] == [lock.NAME]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, value):
    model, parameters = tiny.model()
    path = str(tmp_path / "w.safetensors")
    parameters["output_bias"] = parameters["output_bias"].at[0].set(value)
    weights.save_weights(path, parameters, VOCABULARY)
    with pytest.raises(UserError, match="tensor output_bias holds numbers that are not finite"):
        weights.load_weights(path, model, VOCABULARY)
