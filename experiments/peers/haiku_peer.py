"""dm-haiku: hk.LSTM under hk.dynamic_unroll, optax, one jitted step per call.

Its other cells are not compared, because the other libraries define them differently: hk.GRU applies the reset gate
before the product, and hk.VanillaRNN uses a rectifier.
"""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.peers import jax_loops
from experiments.peers.workload import Program, Workload, draw_parameters, gates, layers
from lm.errors import UserError


def network(workload: Workload, tokens, states, train: bool):
    """tokens [T, B], states (one hk.LSTMState per layer) -> (states, logits [T, B, V])."""

    def drop(x):
        return hk.dropout(hk.next_rng_key(), 1 - workload.keep_prob, x) if train and workload.keep_prob < 1 else x

    if workload.embedding:
        x = hk.Embed(workload.vocabulary, workload.embedding, name="embedding")(tokens)
    else:
        x = jax.nn.one_hot(tokens, workload.vocabulary)
    after = []
    for index, units in enumerate(workload.hidden):
        x, state = hk.dynamic_unroll(hk.LSTM(units, name=f"layer_{index}"), drop(x), states[index])
        after.append(state)
    return tuple(after), hk.Linear(workload.vocabulary, name="output")(drop(x))


def convert(workload: Workload, parameters: dict[str, np.ndarray]) -> dict:
    """Converts the parameters of workload.draw_parameters: haiku orders gates i, g, f, o and adds 1 to f's bias."""
    tree = {"output": {"w": parameters["output_kernel"], "b": parameters["output_bias"]}}
    if workload.embedding:
        tree["embedding"] = {"embeddings": parameters["embedding"]}
    for index, layer in enumerate(layers(parameters)):
        i, f, g, o = gates(np.concatenate([layer["w_x"], layer["w_h"]]), "lstm")
        b_i, b_f, b_g, b_o = gates(layer["b"], "lstm")
        w, b = np.concatenate([i, g, f, o], axis=-1), np.concatenate([b_i, b_g, b_f - 1, b_o])
        tree[f"layer_{index}/linear"] = {"w": w, "b": b}
    return jax.tree.map(jnp.asarray, tree)


def zero_states(workload: Workload, batch: int) -> tuple:
    zeros = [jnp.zeros((batch, units)) for units in workload.hidden]
    return tuple(hk.LSTMState(x, x) for x in zeros)


def build(workload: Workload) -> Program:
    """Raises UserError for cells that haiku defines differently."""
    if workload.cell != "lstm":
        raise UserError(f"haiku's {workload.cell} differs from the other libraries' {workload.cell}")
    transformed = hk.transform(network)
    parameters = convert(workload, draw_parameters(workload))
    if workload.kind == "train":
        return _training(workload, transformed, parameters)

    def apply(parameters, tokens, states):
        return transformed.apply(parameters, None, workload, tokens, states, False)

    return jax_loops.forward(workload, apply, parameters, lambda batch: zero_states(workload, batch))


def _training(workload: Workload, transformed: hk.Transformed, parameters: dict) -> Program:
    optimiser = optax.chain(optax.clip_by_global_norm(workload.clip), optax.sgd(workload.learning_rate))

    @jax.jit
    def step(state, states, window):
        parameters, own, key = state
        key, noise_key = jax.random.split(key)

        def objective(parameters):
            after, logits = transformed.apply(parameters, noise_key, workload, window[:-1], states, True)
            nats = optax.softmax_cross_entropy_with_integer_labels(logits, window[1:]).mean()
            return workload.objective_scale * nats, (after, nats)

        (_, (after, nats)), gradients = jax.value_and_grad(objective, has_aux=True)(parameters)
        updates, own = optimiser.update(gradients, own, parameters)
        return (optax.apply_updates(parameters, updates), own, key), after, nats

    state = (parameters, optimiser.init(parameters), jax.random.key(0))
    return jax_loops.training(workload, step, (state, zero_states(workload, workload.batch)))


VERSIONS = {"dm-haiku": hk.__version__, "optax": optax.__version__}
