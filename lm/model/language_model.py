"""The language model: tokens -> embedding -> recurrent layers -> softmax.

The model owns the parameters. `layer.py` runs the layers, `losses.py` computes the softmax.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, Key, PyTree
from ml_collections import ConfigDict, FrozenConfigDict

from lm.cells.kinds import Carry, Cell, zero_carry
from lm.cells.recurrence import cell_gates
from lm.cells.table import make_cell
from lm.errors import UserError
from lm.model.dropout import Noise, drop, drop_rows
from lm.model.initialisers import initialiser, without_initialisers
from lm.model.layer import RecurrentLayer, check_cell, check_tied_size
from lm.model.losses import GRADIENTS, penalties, softmax_loss, softmax_nats

# Consecutive tokens that make one input symbol.
CONTEXT = {"one_hot": 1, "embedding": 1, "bigram": 2}

# config.model.output -> parameters of the softmax.
OUTPUTS = {
    "dense": "kernel and bias",
    "dense_without_bias": "kernel",
    "sigmoid": "kernel and bias of one unit, for two classes of labelled sequences",
    "dropped_logits": "kernel and bias; windows only: dropout acts on the logits as on the layer before them (CS224d)",
    "identity": "none; labelled sequences only: the last layer's outputs are the logits",
    "crf": "kernel and bias, and scores of tag pairs, first and last tags; labelled tokens only (lm/model/crf.py)",
    "tied": "bias; the kernel is the embedding table, transposed (Inan et al. 2017, Press and Wolf 2017)",
}


class LanguageModel(nn.Module):
    """An autoregressive model of token streams.

    config, init_config: config.model and config.init; vocabulary_size: V
    zoneout: (name, rate) of each active zoneout, for evaluation: a unit's expectation is rate x its previous value
        + (1 - rate) x its new value. Training reads the rates from its `Noise`.
    reset: the symbol before which the state is reset to zero (config.data.reset); None: the state is never reset
    """

    config: FrozenConfigDict
    init_config: FrozenConfigDict
    vocabulary_size: int
    zoneout: tuple[tuple[str, float], ...] = ()
    reset: int | None = None

    def for_training(self) -> "LanguageModel":
        return without_initialisers(self, zoneout=())

    @property
    def cell(self) -> Cell:
        return make_cell(self.config)

    @property
    def context(self) -> int:
        """Tokens that make one input: 2 for bigrams, else 1."""
        return CONTEXT[self.config.input]

    @property
    def input_symbols(self) -> int:
        """Distinct input symbols: V, or V^2 bigrams."""
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

    def input_ids(self, tokens: Integer[Array, "R B"]) -> Integer[Array, "R-{self.context}+1 B"]:
        """Input symbols of tokens. A bigram (a, b) is a + V * b."""
        if self.context == 1:
            return tokens
        tokens = tokens.astype(jnp.int32)
        return tokens[:-1] + self.vocabulary_size * tokens[1:]

    def features(
        self, tokens: Integer[Array, "R B"], carry: tuple, noise: Noise | None = None
    ) -> tuple[tuple, Float[Array, "R-{self.context}+1 B P"]]:
        """Reads tokens. Returns (carry after them, the last layer's outputs after dropout)."""
        carry, x = self._raw_features(tokens, carry, noise)
        return carry, drop(noise, "output", x)

    def _raw_features(self, tokens: Array, carry: tuple, noise: Noise | None) -> tuple[tuple, Array]:
        """`features` before dropout on the output."""
        x, after, reset = self._embed(tokens, noise), [], self.reset_mask(tokens)
        for index, layer in enumerate(self.layers):
            if index:
                x = drop(noise, "between", x, index)
            carry_out, x = layer(x, carry[index], noise, reset)
            after.append(carry_out)
        return tuple(after), x

    def reset_mask(self, tokens: Array) -> Array | None:
        """0 [T, B, 1] at steps whose last token is the reset symbol, else 1; None if there is no reset symbol."""
        if self.reset is None:
            return None
        return (tokens[self.context - 1 :, :, None] != self.reset).astype(jnp.float32)

    def _embed(self, tokens: Array, noise: Noise | None) -> Array:
        """The first layer's input: embeddings [T, B, E], or ids [T, B] of one-hot vectors."""
        x = self.input_ids(tokens)
        if self.config.input == "one_hot":
            return x
        x = drop_rows(noise, jnp.take(self.embedding, x, axis=0, mode="clip"), x, self.input_symbols)
        return drop(noise, "input", x)

    def gates(self, tokens: Integer[Array, "{self.context} B"], carry: tuple) -> tuple[dict[str, Array], ...]:
        """Each layer's gates {name: [B, H]} at a single step, by their names in the cell's equations."""
        x, gates, reset = self._embed(tokens, None), [], self.reset_mask(tokens)
        for layer, before in zip(self.layers, carry, strict=True):
            start = before if reset is None else jax.tree.map(lambda field: reset[0] * field, before)
            gates.append(cell_gates(self.cell, dict(layer.variables["params"]), x, start))
            _, x = layer(x, start)
        return tuple(gates)

    def _output(self) -> tuple[Float[Array, "P V"], Float[Array, " V"]]:
        """Kernel and bias of the softmax."""
        kernel = self.embedding.T if self.config.output == "tied" else self.output_kernel
        if self.config.output == "dense_without_bias":
            return kernel, jnp.zeros(kernel.shape[1], kernel.dtype)
        return kernel, self.output_bias

    def __call__(
        self, tokens: Integer[Array, "R B"], carry: tuple
    ) -> tuple[tuple, Float[Array, "R-{self.context}+1 B V"]]:
        """Reads tokens without noise. Returns (carry after them, logits)."""
        carry, x = self.features(tokens, carry)
        kernel, bias = self._output()
        return carry, x @ kernel + bias[None, None]

    def nats(self, window: Integer[Array, "W B"], carry: tuple) -> tuple[tuple, Float[Array, "W-{self.context} B"]]:
        """Scores a window without noise. Returns (carry after it, -ln p of every target)."""
        carry, x = self.features(window[:-1], carry)
        targets = window[self.context :]
        return carry, softmax_nats(x, *self._output(), targets)

    def scored(
        self, window: Integer[Array, "W B"], carry: tuple
    ) -> tuple[Float[Array, ""], tuple[tuple, Array, Array]]:
        """Scores a window without noise. Returns (total, (carry after it, the last layer's outputs [W - context, B, P],
        -ln p of every target)). total is the sum of -ln p and has a gradient; -ln p of single targets have none."""
        carry, x = self.features(window[:-1], carry)
        targets = window[self.context :]
        total, nats = softmax_loss(x, *self._output(), targets, jnp.ones(targets.shape, x.dtype))
        return total, (carry, x, nats)

    def loss(
        self,
        window: Integer[Array, "W B"],
        carry: tuple,
        weights: Float[Array, "W-{self.context} B"],
        noise: Noise | None = None,
        terms: dict[str, Float[Array, ""]] | None = None,
        gradient: str = "full",
    ) -> tuple[Float[Array, ""], tuple[tuple, Float[Array, "W-{self.context} B"]]]:
        """Training objective of a window. Returns (objective, (carry after it, nats)), as value_and_grad expects.

        weights: weight of each target (`losses.target_weights`)
        terms: factors of active terms: label_smoothing (`softmax_loss`), activation, temporal_activation (`penalties`)
        gradient: a name of `losses.GRADIENTS`
        """
        terms = terms or {}
        targets = window[self.context :]
        carry, raw = self._raw_features(window[:-1], carry, noise)
        dropped = drop(noise, "output", raw)
        arguments = (*self._output(), targets, weights, terms.get("label_smoothing"))
        objective, nats = softmax_loss(GRADIENTS[gradient](dropped), *arguments)
        return objective + penalties(terms, raw, dropped), (carry, nats)

    def draw(self, key: Key[Array, ""]) -> dict:
        """Draws all parameters, each with its own key, derived from its path."""
        tokens = jnp.zeros((self.context, 1), jnp.int32)
        return _init(self, key, tokens, self.initial_carry(1))["params"]

    def initial_carry(self, batch: int) -> tuple:
        """Initial state of every stream: one carry per layer."""
        start = INITIAL_CARRIES[self.config.initial_carry]
        return tuple(start(self.cell, batch, units) for units in self.config.hidden)


def first_unit_one(cell: Cell, batch: int, units: int) -> Carry:
    """Zeros, except for the first unit of every field, which is 1 (Trask 2019, Grokking Deep Learning, ch. 14)."""
    return jax.tree.map(lambda x: x.at[:, 0].set(1.0), zero_carry(cell, batch, units))


INITIAL_CARRIES = {"zeros": zero_carry, "first_unit_one": first_unit_one}


def make_model(config: ConfigDict, vocabulary_size: int, reset: int | None = None) -> LanguageModel:
    """Builds the model of a config. Raises UserError for incompatible values.

    reset: the id of config.data.reset (lm/data/text.py: `Vocabulary.reset_id`)
    """
    if reset is not None and config.model.initial_carry != "zeros":
        raise UserError(f"config.data.reset needs config.model.initial_carry=zeros, not {config.model.initial_carry}")
    if config.model.initial_carry not in INITIAL_CARRIES:
        raise UserError(f"config.model.initial_carry={config.model.initial_carry} is only for labelled sequences")
    cell = make_cell(config.model)
    check_input(config, vocabulary_size, cell)
    check_cell(config, cell)
    zoneout = tuple((name, rate) for name, rate in sorted(config.zoneout.items()) if rate > 0)
    return LanguageModel(FrozenConfigDict(config.model), FrozenConfigDict(config.init), vocabulary_size, zoneout, reset)


def check_input(config: ConfigDict, vocabulary_size: int, cell: Cell):
    """Raises UserError for settings that do not fit config.model.input."""
    model = config.model
    if model.input == "one_hot":
        for site in ("input", "embedding"):
            if config.keep_prob[site] < 1:
                raise UserError(f"config.keep_prob.{site} < 1 needs config.model.input=embedding or bigram")
    elif not model.embedding_size:
        raise UserError(f"config.model.embedding_size must be at least 1 with config.model.input={model.input}, not 0")
    if vocabulary_size ** CONTEXT[model.input] >= 2**31:
        raise UserError(
            f"config.model.input={model.input}: {vocabulary_size} symbols form too many pairs for 32 bits; "
            "config.model.input=embedding reads single symbols"
        )
    if model.output in ("sigmoid", "dropped_logits", "identity", "crf"):
        raise UserError(f"config.model.output={model.output} is for labelled sequences, not for a language model")
    if model.output == "tied" and model.input != "embedding":
        raise UserError(f"config.model.output=tied needs config.model.input=embedding, not {model.input}")
    check_tied_size(model, cell)


def read_tokens(
    model: LanguageModel, parameters: dict, tokens: Integer[Array, "R B"], carry: tuple
) -> tuple[tuple, Float[Array, "R-{model.context}+1 B V"]]:
    """Calls `model(tokens, carry)` with these parameters. Returns (carry after the tokens, logits)."""
    result: Any = model.apply({"params": parameters}, tokens, carry)
    return result


@functools.partial(jax.jit, static_argnums=0)  # compiled once for all seeds
def _init(model: LanguageModel, *arguments):
    return model.init(*arguments)


def count_parameters(parameters: PyTree) -> int:
    """Number of scalars in a tree of parameters."""
    return sum(x.size for x in jax.tree.leaves(parameters))
