"""Keras 3 on its JAX backend: a functional model and the documented stateless training step, jitted.

Labelled sequences are padded with zeros, which Embedding(mask_zero=True) masks. Order `random` pads to the maximum
length, order `sorted` to one of eight evenly spaced lengths. Each length is compiled separately.
"""

import os
from collections.abc import Callable, Sequence

os.environ["KERAS_BACKEND"] = "jax"  # read when keras is imported

import jax
import jax.numpy as jnp
import keras
import numpy as np

from experiments.peers import jax_loops
from experiments.peers.sequences import pad, peer_batches
from experiments.peers.workload import Program, Workload, draw_parameters, gates, layers

LAYERS = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "elman": keras.layers.SimpleRNN}
STATES = {"lstm": 2, "gru": 1, "elman": 1}  # number of arrays in a layer's state
LENGTHS = 8  # number of padded lengths in the order `sorted`


def make_model(workload: Workload) -> keras.Model:
    """A model that maps [tokens [B, T], states ...] to [logits [B, T, V], states ...]."""
    tokens = keras.Input((None,), dtype="int32")
    inputs, outputs = [tokens], []
    if workload.embedding:
        x = keras.layers.Embedding(workload.vocabulary, workload.embedding, name="embedding")(tokens)
    else:
        x = keras.ops.one_hot(tokens, workload.vocabulary)
    for index, units in enumerate(workload.hidden):
        states = [keras.Input((units,)) for _ in range(STATES[workload.cell])]
        inputs += states
        if workload.keep_prob < 1:
            x = keras.layers.Dropout(1 - workload.keep_prob)(x)
        layer = LAYERS[workload.cell](units, return_sequences=True, return_state=True, name=f"layer_{index}")
        x, *after = layer(x, initial_state=states)
        outputs += after
    if workload.keep_prob < 1:
        x = keras.layers.Dropout(1 - workload.keep_prob)(x)
    return keras.Model(inputs, [keras.layers.Dense(workload.vocabulary, name="output")(x), *outputs])


def make_classifier(workload: Workload) -> keras.Model:
    """A model that maps tokens [B, T], where 0 is padding, to the logit [B, 1] of label 1."""
    tokens = keras.Input((None,), dtype="int32")
    embedding = keras.layers.Embedding(workload.vocabulary, workload.embedding, mask_zero=True, name="embedding")
    h = LAYERS[workload.cell](workload.hidden[0], name="layer_0")(embedding(tokens))
    return keras.Model(tokens, keras.layers.Dense(1, name="output")(h))


def load(workload: Workload, model: keras.Model, parameters: dict[str, np.ndarray]):
    """Copies the parameters of workload.draw_parameters into the model. Keras orders the gates of a GRU z, r, g."""
    if workload.embedding:
        model.get_layer("embedding").set_weights([parameters["embedding"]])
    for index, layer in enumerate(layers(parameters)):
        w_x, w_h, b = layer["w_x"], layer["w_h"], layer["b"]
        if workload.cell == "gru":
            w_x, w_h, b = (np.concatenate([z, r, g], -1) for r, z, g in (gates(x, "gru") for x in (w_x, w_h, b)))
            b = np.stack([b, np.concatenate([np.zeros(2 * layer["b_h"].size, np.float32), layer["b_h"]])])
        model.get_layer(f"layer_{index}").set_weights([w_x, w_h, b])
    model.get_layer("output").set_weights([parameters["output_kernel"], parameters["output_bias"]])


def zero_states(workload: Workload, batch: int) -> list:
    return [jnp.zeros((batch, units)) for units in workload.hidden for _ in range(STATES[workload.cell])]


def build(workload: Workload, order: str = "random", first: Sequence[Sequence[int]] = ()) -> Program:
    """Builds the program. order, first: arguments of `peer_batches`, for labelled sequences."""
    model = make_classifier(workload) if workload.labelled else make_model(workload)
    load(workload, model, draw_parameters(workload))
    variables = [v.value for v in model.trainable_variables]
    others = [v.value for v in model.non_trainable_variables]
    if workload.kind == "train":
        return _training(workload, model, variables, others)
    if workload.labelled:
        multiple = -(-workload.length // LENGTHS) if order == "sorted" else workload.length
        return _classification(workload, model, multiple, peer_batches(workload, first, order))

    def apply(variables, tokens, states):
        (logits, *states), _ = model.stateless_call(variables, others, [tokens.T, *states])
        return states, jnp.swapaxes(logits, 0, 1)

    return jax_loops.forward(workload, apply, variables, lambda batch: zero_states(workload, batch))


def _training(workload: Workload, model: keras.Model, variables: list, others: list) -> Program:
    optimiser = keras.optimizers.SGD(workload.learning_rate, global_clipnorm=workload.clip)
    optimiser.build(model.trainable_variables)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @jax.jit
    def step(state, states, window):
        variables, others, own = state

        def objective(variables):
            inputs = [window[:-1].T, *states]
            (logits, *after), updated = model.stateless_call(variables, others, inputs, training=True)
            nats = cross_entropy(window[1:].T, logits)
            return workload.objective_scale * nats, (after, updated, nats)

        (_, (after, updated, nats)), gradients = jax.value_and_grad(objective, has_aux=True)(variables)
        variables, own = optimiser.stateless_apply(own, gradients, variables)
        return (variables, updated, own), after, nats

    own = [v.value for v in optimiser.variables]
    return jax_loops.training(workload, step, ((variables, others, own), zero_states(workload, workload.batch)))


def _classification(workload: Workload, model: keras.Model, multiple: int, batches: Callable) -> Program:
    """Pads each batch to a length that is a multiple of `multiple`."""
    optimiser = keras.optimizers.Adam(workload.learning_rate, epsilon=1e-8)
    optimiser.build(model.trainable_variables)
    cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True)

    @jax.jit
    def step(state, tokens, labels):
        variables, others, own = state

        def objective(variables):
            logits, updated = model.stateless_call(variables, others, tokens, training=True)
            return cross_entropy(labels[:, None], logits), updated

        (nats, updated), gradients = jax.value_and_grad(objective, has_aux=True)(variables)
        variables, own = optimiser.stateless_apply(own, gradients, variables)
        return (variables, updated, own), nats

    groups = (model.trainable_variables, model.non_trainable_variables, optimiser.variables)
    state, done = tuple([v.value for v in group] for group in groups), 0

    def run(n: int) -> float:
        nonlocal state, done
        if not done:  # compiles the step for every length
            for steps in range(multiple, workload.length + multiple, multiple):
                tokens = np.ones((workload.batch, min(steps, workload.length)), np.int32)
                step(state, tokens, np.zeros(workload.batch, np.float32))
        for _ in range(n):
            batch = pad(workload, batches(done), multiple)
            state, nats = step(state, batch.tokens, batch.labels.astype(np.float32))
            done += 1
        return float(jax.block_until_ready((state, nats))[1])

    return Program(run, batches=batches)


VERSIONS = {"keras": keras.__version__}
