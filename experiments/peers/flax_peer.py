"""flax.linen as its documentation uses it: nn.RNN over a cell, optax, one jitted step per call."""

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

from experiments.peers import jax_loops
from experiments.peers.workload import Program, Workload, draw_parameters, gates, layers

CELLS = {"lstm": nn.OptimizedLSTMCell, "gru": nn.GRUCell, "elman": nn.SimpleCell}
# Names of a cell's products with x and with h, in this project's gate order.
GATE_NAMES = {
    "lstm": (("ii", "if", "ig", "io"), ("hi", "hf", "hg", "ho")),
    "gru": (("ir", "iz", "in"), ("hr", "hz", "hn")),
    "elman": (("i",), ("h",)),
}


class Model(nn.Module):
    """Embedding or one-hot input, nn.RNN layers, nn.Dense."""

    workload: Workload

    @nn.compact
    def __call__(self, tokens, carries, train: bool = False):
        """tokens [T, B], carries (one per layer) -> (carries, logits [T, B, V])."""
        workload = self.workload

        def drop(x):
            return nn.Dropout(1 - workload.keep_prob, deterministic=not train)(x) if workload.keep_prob < 1 else x

        if workload.embedding:
            x = nn.Embed(workload.vocabulary, workload.embedding, name="embedding")(tokens)
        else:
            x = jax.nn.one_hot(tokens, workload.vocabulary)
        after = []
        for index, units in enumerate(workload.hidden):
            cell = CELLS[workload.cell](units, name=f"layer_{index}")
            rnn = nn.RNN(cell, time_major=True, return_carry=True)
            carry, x = rnn(drop(x), initial_carry=carries[index])
            after.append(carry)
        return tuple(after), nn.Dense(workload.vocabulary, name="output")(drop(x))


def convert(workload: Workload, parameters: dict) -> dict:
    """Converts the parameters of workload.draw_parameters to the tree of Model.init."""
    tree = {"output": {"kernel": parameters["output_kernel"], "bias": parameters["output_bias"]}}
    if workload.embedding:
        tree["embedding"] = {"embedding": parameters["embedding"]}
    for index, layer in enumerate(layers(parameters)):
        w_x, w_h, b = (gates(layer[name], workload.cell) for name in ("w_x", "w_h", "b"))
        x_names, h_names = GATE_NAMES[workload.cell]
        cell = {name: {"kernel": w} for name, w in zip((*x_names, *h_names), (*w_x, *w_h), strict=True)}
        for name, bias in zip(h_names if workload.cell == "lstm" else x_names, b, strict=True):
            cell[name]["bias"] = bias
        if workload.cell == "gru":
            cell["hn"]["bias"] = layer["b_h"]
        tree[f"layer_{index}"] = cell
    return jax.tree.map(jnp.asarray, tree)


def zero_carries(workload: Workload, batch: int) -> tuple:
    """Zero carries, one per layer: (c, h) for an LSTM, otherwise h; arrays [B, H]."""
    zeros = [jnp.zeros((batch, units)) for units in workload.hidden]
    return tuple((x, x) for x in zeros) if workload.cell == "lstm" else tuple(zeros)


def build(workload: Workload) -> Program:
    model = Model(workload)
    parameters = convert(workload, draw_parameters(workload))
    token = jnp.zeros((1, 1), jnp.int32)
    initial = jax.eval_shape(model.init, jax.random.key(0), token, zero_carries(workload, 1))["params"]
    assert jax.tree.map(jnp.shape, initial) == jax.tree.map(jnp.shape, parameters), "shapes differ from flax's"
    if workload.kind == "train":
        return _training(workload, model, parameters)

    def apply(variables, tokens, carries):
        return model.apply({"params": variables}, tokens, carries)

    return jax_loops.forward(workload, apply, parameters, lambda batch: zero_carries(workload, batch))


def _training(workload: Workload, model: Model, parameters: dict) -> Program:
    optimiser = optax.chain(optax.clip_by_global_norm(workload.clip), optax.sgd(workload.learning_rate))
    state = TrainState.create(apply_fn=model.apply, params=parameters, tx=optimiser)

    @jax.jit
    def step(state, carries, window, key):
        def objective(parameters):
            rngs = {"dropout": jax.random.fold_in(key, state.step)}
            after, logits = state.apply_fn({"params": parameters}, window[:-1], carries, train=True, rngs=rngs)
            nats = optax.softmax_cross_entropy_with_integer_labels(logits, window[1:]).mean()
            return workload.objective_scale * nats, (after, nats)

        (_, (carries, nats)), gradients = jax.value_and_grad(objective, has_aux=True)(state.params)
        return state.apply_gradients(grads=gradients), carries, nats

    key = jax.random.key(0)
    start = (state, zero_carries(workload, workload.batch))
    return jax_loops.training(workload, lambda state, carries, window: step(state, carries, window, key), start)


VERSIONS = {"flax": flax.__version__, "optax": optax.__version__}
