"""The language model: token ids -> embedding -> recurrent layers -> softmax.

The model owns parameters and their initialisers; `layer.py` runs the layers, `losses.py` the softmax.
Shapes: T time, B batch, V vocabulary, D embedding, H units. Tokens are time-major, [T, B].
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from lm.cells.kinds import Cell, zero_carry
from lm.cells.table import check_bias, make_cell
from lm.errors import UserError, check_name, lookup
from lm.model.dropout import MASKS, Noise, drop, drop_rows
from lm.model.initialisers import check as check_initialiser
from lm.model.initialisers import initialiser
from lm.model.layer import RecurrentLayer, check_noise
from lm.model.losses import GRADIENTS, penalties, softmax_loss, softmax_nats

Array = jax.Array

# How many consecutive tokens make one input symbol.
CONTEXT = {"one_hot": 1, "embedding": 1, "bigram": 2}

# Forms of the softmax's parameters.
OUTPUTS = {
    "dense": "kernel and bias",
    "dense_without_bias": "kernel",
    "tied": "bias; the kernel is the embedding table, transposed (Inan et al. 2017, Press & Wolf 2017)",
}


class LanguageModel(nn.Module):
    """An autoregressive model of token streams.

    config: the `model` part of an experiment's config; init: its `init` part; vocabulary_size: V
    zoneout: (name, rate) of each active zoneout. Without noise, as in evaluation, a unit takes the expectation: rate
        x its previous value + (1 - rate) x its new one. Training reads the rates of its `Noise` instead.
    """

    config: ml_collections.FrozenConfigDict
    init_config: ml_collections.FrozenConfigDict
    vocabulary_size: int
    zoneout: tuple[tuple[str, float], ...] = ()

    def for_training(self) -> "LanguageModel":
        """The same model without what only evaluation or initialisation reads; equal for all their numbers."""
        unread = ml_collections.FrozenConfigDict(dict.fromkeys(self.init_config, ("zeros",)))
        return self.clone(zoneout=(), init_config=unread)

    @property
    def cell(self) -> Cell:
        return make_cell(self.config)

    @property
    def context(self) -> int:
        """Tokens that make one input: 2 for bigrams, else 1."""
        return lookup(CONTEXT, self.config.input, "config.model.input")

    @property
    def input_symbols(self) -> int:
        return self.vocabulary_size**self.context

    def setup(self):
        init, config = self.init_config, self.config
        embedded = config.input != "one_hot"
        if embedded:
            shape = (self.input_symbols, config.embedding_size)
            self.embedding = self.param("embedding", initialiser(init.embedding), shape)
        outputs = [self.cell.output_size(units) for units in config.hidden]
        sizes = (config.embedding_size if embedded else self.vocabulary_size, *outputs)
        self.layers = [
            RecurrentLayer(self.cell, inputs, units, init, index, self.zoneout, name=f"layer_{index}")
            for index, (inputs, units) in enumerate(zip(sizes, config.hidden, strict=False))
        ]
        shape = (outputs[-1], self.vocabulary_size)
        if config.output != "tied":
            self.output_kernel = self.param("output_kernel", initialiser(init.output), shape)
        if config.output != "dense_without_bias":
            self.output_bias = self.param("output_bias", initialiser(init.output_bias), shape[1:])

    def input_ids(self, tokens: Array) -> Array:
        """Tokens [S, B] -> input symbols [S - context + 1, B]; a bigram (a, b) is a + V * b."""
        if self.context == 1:
            return tokens
        tokens = tokens.astype(jnp.int32)
        return tokens[:-1] + self.vocabulary_size * tokens[1:]

    def features(self, tokens: Array, carry: tuple, noise: Noise | None = None) -> tuple:
        """Tokens [S, B], carry (one per layer) -> (carry, last layer's outputs [S - context + 1, B, H])."""
        carry, x = self._raw_features(tokens, carry, noise)
        return carry, drop(noise, "output", x)

    def _raw_features(self, tokens: Array, carry: tuple, noise: Noise | None) -> tuple:
        """`features` before dropout on the output."""
        x = self.input_ids(tokens)
        if self.config.input != "one_hot":
            x = drop_rows(noise, jnp.take(self.embedding, x, axis=0, mode="clip"), x, self.input_symbols)
            x = drop(noise, "input", x)
        after = []
        for index, layer in enumerate(self.layers):
            if index:
                x = drop(noise, "between", x, index)
            carry_out, x = layer(x, carry[index], noise)
            after.append(carry_out)
        return tuple(after), x

    def _output(self) -> tuple[Array, Array]:
        """Softmax kernel [H, V] and bias [V]."""
        kernel = self.embedding.T if self.config.output == "tied" else self.output_kernel
        if self.config.output == "dense_without_bias":
            return kernel, jnp.zeros(kernel.shape[1], kernel.dtype)
        return kernel, self.output_bias

    def __call__(self, tokens: Array, carry: tuple) -> tuple:
        """Tokens [S, B] -> (carry, logits [S - context + 1, B, V]), without noise."""
        carry, x = self.features(tokens, carry)
        kernel, bias = self._output()
        return carry, x @ kernel + bias[None, None]

    def nats(self, window: Array, carry: tuple) -> tuple:
        """-ln p of every target of a window [T + 1, B] -> (carry, nats [T + 1 - context, B]), without noise."""
        carry, x = self.features(window[:-1], carry)
        targets = window[self.context :]
        nats = softmax_nats(x.reshape(-1, x.shape[-1]), *self._output(), targets.reshape(-1))
        return carry, nats.reshape(targets.shape)

    def loss(
        self,
        window: Array,
        carry: tuple,
        weights: Array,
        noise: Noise | None = None,
        terms: dict[str, Array] | None = None,
        gradient: str = "full",
    ) -> tuple:
        """Training objective of a window [T + 1, B] with target weights [T + 1 - context, B].

        terms: active ones of label_smoothing (`softmax_loss`), activation, temporal_activation (`penalties`)
        gradient: a name of `losses.GRADIENTS`
        Returns (objective, (carry, nats [T + 1 - context, B])); `jax.value_and_grad(..., has_aux=True)` fits.
        """
        terms = terms or {}
        targets = window[self.context :]
        carry, raw = self._raw_features(window[:-1], carry, noise)
        dropped = drop(noise, "output", raw)
        kernel, bias = self._output()
        features = GRADIENTS[gradient](dropped)
        rows = features.reshape(-1, features.shape[-1])
        smoothing = terms.get("label_smoothing")
        objective, per_target = softmax_loss(rows, kernel, bias, targets.reshape(-1), weights.reshape(-1), smoothing)
        return objective + penalties(terms, raw, dropped), (carry, per_target.reshape(targets.shape))

    def initial_carry(self, batch: int) -> tuple:
        """The state every stream starts from, one carry per layer."""
        start = lookup(INITIAL_CARRIES, self.config.initial_carry, "config.model.initial_carry")
        return tuple(start(self.cell, batch, units) for units in self.config.hidden)


def first_unit_one(cell: Cell, batch: int, units: int):
    """Every field of the state 0 but for its first unit, 1 (Grokking Deep Learning ch. 14, `init_hidden`)."""
    return jax.tree.map(lambda x: x.at[:, 0].set(1.0), zero_carry(cell, batch, units))


INITIAL_CARRIES = {"zeros": zero_carry, "first_unit_one": first_unit_one}


def make_model(config: ml_collections.ConfigDict, vocabulary_size: int) -> LanguageModel:
    """The model of an experiment's config. Raises UserError for names or sizes that make none."""
    if not config.model.hidden or not all(0 < units < 2**31 for units in config.model.hidden):
        raise UserError(f"config.model.hidden must be a tuple of positive sizes below 2^31, not {config.model.hidden}")
    check_name(config.model.output, OUTPUTS, "config.model.output")
    check_name(config.dropout.mask, MASKS, "config.dropout.mask")
    check_name(config.model.input, CONTEXT, "config.model.input")
    cell = make_cell(config.model)
    check_input(config, vocabulary_size, cell.output_size(config.model.hidden[-1]))
    check_noise(config, cell)
    for role, specification in config.init.items():
        check_initialiser(f"config.init.{role}", specification)
    check_bias(cell, config.init.bias)
    freeze = ml_collections.FrozenConfigDict
    zoneout = tuple((name, rate) for name, rate in sorted(config.zoneout.items()) if rate > 0)
    return LanguageModel(freeze(config.model), freeze(config.init), vocabulary_size, zoneout)


def check_input(config: ml_collections.ConfigDict, vocabulary_size: int, features: int):
    """Raises UserError for settings that need another embedding table than the config's input has.

    features: size of what the softmax reads
    """
    model = config.model
    if model.input == "one_hot":
        for site in ("input", "embedding"):
            if config.keep_prob[site] < 1:
                raise UserError(f"config.keep_prob.{site} < 1 needs config.model.input=embedding or bigram, "
                                "not one_hot")  # fmt: skip
    elif not 0 < model.embedding_size < 2**31:
        raise UserError("config.model.embedding_size must be positive and below 2^31 with config.model.input="
                        f"{model.input}, not {model.embedding_size}")  # fmt: skip
    if vocabulary_size ** CONTEXT[model.input] >= 2**31:
        raise UserError(f"config.model.input={model.input}: {vocabulary_size} symbols make more pairs than 32 bits "
                        "count; config.model.input=embedding has one input for each symbol")  # fmt: skip
    if model.output == "tied" and model.input != "embedding":
        raise UserError(f"config.model.output=tied needs config.model.input=embedding, not {model.input}")
    if model.output == "tied" and model.embedding_size != features:
        raise UserError(f"config.model.output=tied needs config.model.embedding_size equal to the size of the last "
                        f"layer's output, {features}, not {model.embedding_size}")  # fmt: skip


def init_parameters(model: LanguageModel, key: Array) -> dict:
    """Draws all parameters; every one has a key of its own, derived from its path."""
    tokens = jnp.zeros((model.context, 1), jnp.int32)
    return _init(model, key, tokens, model.initial_carry(1))["params"]


@functools.partial(jax.jit, static_argnums=0)  # compiled once for all seeds of a model
def _init(model: LanguageModel, *arguments) -> dict:
    return model.init(*arguments)


def count_parameters(parameters: dict) -> int:
    return sum(x.size for x in jax.tree.leaves(parameters))
