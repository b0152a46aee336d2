"""Encoder and decoder: reads one sequence, and writes another symbol by symbol.

Both have the layers of config.model.hidden. The decoder starts from the encoder's last carry. If the encoder is
bidirectional, each field of that carry is tanh([forward; backward] W).

context         what else a decoder step reads from the source            source
start           nothing                                                   Sutskever et al. 2014
every_step      c, the encoder's last output                              Cho et al. 2014
additive        c, the mean of the encoder's outputs h, weighted by       Bahdanau et al. 2015
                softmax(v . tanh([s; h] W + b)), s: the previous state
multiplicative  after the step: c, weighted by softmax(s' W h)            Luong et al. 2015
fed             as multiplicative, plus y of the previous step            Luong et al. 2015, input feeding

With every_step and additive, the step reads [x; c] and the softmax [s'; c; x]. With multiplicative and fed, the softmax
reads y = tanh([c; s'] W). x is the embedding of the previous symbol, s' the last layer's output.

With config.model.output=tied, the softmax's kernel is the target embedding table, transposed. The attention weights are
sown as ATTENTION in flax's collection "intermediates", which a caller must request with `mutable`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Integer, Key
from ml_collections import ConfigDict, FrozenConfigDict

from lm.cells.kinds import Cell, zero_carry
from lm.cells.table import make_cell
from lm.errors import UserError
from lm.model.dropout import Noise, drop
from lm.model.initialisers import Separate
from lm.model.layer import RecurrentLayer, check_cell, check_tied_size, check_values, mask_of
from lm.model.losses import softmax_loss
from lm.model.sequence_model import reverse_sequences

CONTEXTS = ("start", "every_step", "additive", "multiplicative", "fed")
STEPWISE = ("additive", "fed")  # a step reads results of the previous step: run one step at a time
JOINED = ("every_step", "additive")  # the softmax reads [s'; c; x]
ATTENDS = ("additive", "multiplicative", "fed")
ATTENTION = "attention"


class Memory(NamedTuple):
    """An encoded source of S tokens. outputs: the last layer's; inside: False at padding; summary: the last output"""

    outputs: Float[Array, "S B P"]
    inside: Bool[Array, "S B"]
    summary: Float[Array, "B P"]


class DecoderState(NamedTuple):
    """carry: one per layer; fed: y of the previous step"""

    carry: tuple
    fed: Float[Array, "B H"]


class EncoderDecoder(Separate):
    """config, init_config: config.model and config.init; source_size, target_size: vocabulary sizes"""

    config: FrozenConfigDict
    init_config: FrozenConfigDict
    source_size: int
    target_size: int

    @property
    def cell(self) -> Cell:
        return make_cell(self.config)

    @property
    def stepwise(self) -> bool:
        """Whether the decoder must run one step at a time."""
        return self.config.context in STEPWISE

    def setup(self):
        init, config, cell = self.init_config, self.config, self.cell
        one_hot = config.input == "one_hot"
        source, target = (self.source_size, self.target_size) if one_hot else 2 * (config.embedding_size,)
        if not one_hot:
            self.source_embedding = self.parameter("source_embedding", "embedding", self.source_size, source)
            self.target_embedding = self.parameter("target_embedding", "embedding", self.target_size, target)
        ways, count = ("", "_backward") if config.direction == "both" else ("",), len(config.hidden)
        outputs = [cell.output_size(units) for units in config.hidden]
        inputs = [source, *(len(ways) * size for size in outputs)]
        self.encoder = [
            [
                RecurrentLayer(cell, size, units, init, index + count * way, name=f"encoder_{index}{suffix}")
                for way, suffix in enumerate(ways)
            ]
            for index, (size, units) in enumerate(zip(inputs, config.hidden, strict=False))
        ]
        width, last = inputs[-1], outputs[-1]  # sizes of the encoder's and the decoder's outputs
        first = target + (width if config.context in JOINED else last if config.context == "fed" else 0)
        self.decoder = [
            RecurrentLayer(cell, size, units, init, index + count * len(ways), name=f"decoder_{index}")
            for index, (size, units) in enumerate(zip([first, *outputs], config.hidden, strict=False))
        ]
        if len(ways) == 2:
            fields = zero_carry(cell, 1, 1)._fields
            self.bridges = [
                {f: self.parameter(f"bridge_{index}_{f}", "input", 2 * units, units) for f in fields}
                for index, units in enumerate(config.hidden)
            ]
        self._setup_context(width, last)
        features = last + width + target if config.context in JOINED else last
        if config.output == "tied":
            self.output_kernel = self.target_embedding.T
        else:
            self.output_kernel = self.parameter("output_kernel", "output", features, self.target_size)
        self.output_bias = self.parameter("output_bias", "output_bias", self.target_size)

    def _setup_context(self, width: int, last: int):
        if self.config.context == "additive":
            self.attention_kernel = self.parameter("attention_kernel", "input", last + width, last)
            self.attention_bias = self.parameter("attention_bias", "bias", last)
            self.attention_vector = self.parameter("attention_vector", "output", last, 1)
        elif self.config.context in ("multiplicative", "fed"):
            self.attention_kernel = self.parameter("attention_kernel", "input", last, width)
            self.mix_kernel = self.parameter("mix_kernel", "input", width + last, last)

    # --- Encoder ----------------------------------------------------------------------------------------------------

    def encode(
        self, tokens: Integer[Array, "S B"], lengths: Int[Array, " B"], noise: Noise | None = None
    ) -> tuple[DecoderState, Memory]:
        """Encodes sources of these lengths. Returns (initial state of the decoder, memory). Padding has no effect."""
        x = tokens
        if self.config.input != "one_hot":
            x = drop(noise, "input", jnp.take(self.source_embedding, tokens, axis=0, mode="clip"))
        carries, rows = [], tokens.shape[1]
        for index, ways in enumerate(self.encoder):
            if index:
                x = drop(noise, "between", x, index)
            outputs, ends = [], []
            for way, layer in enumerate(ways):
                read = reverse_sequences(x, lengths) if way else x
                end, y = layer(read, zero_carry(self.cell, rows, layer.units), noise, lengths=lengths)
                outputs.append(reverse_sequences(y, lengths) if way else y)
                ends.append(end)
            carries.append(ends[0] if len(ends) == 1 else self._bridge(index, *ends))
            x = jnp.concatenate(outputs, axis=-1)
        last = jnp.maximum(lengths - 1, 0)
        summary = jnp.take_along_axis(x, last[None, :, None], axis=0)[0]
        state = DecoderState(tuple(carries), jnp.zeros((rows, self.cell.output_size(self.config.hidden[-1]))))
        return state, Memory(x, mask_of(lengths, tokens.shape[0]), summary)

    def _bridge(self, index: int, forward, backward):
        """The decoder's initial carry, from the last carries of both directions."""
        fields = {
            name: jnp.tanh(jnp.concatenate([getattr(forward, name), getattr(backward, name)], axis=-1) @ kernel)
            for name, kernel in self.bridges[index].items()
        }
        return forward._replace(**fields)

    # --- Decoder ----------------------------------------------------------------------------------------------------

    def decode(
        self, tokens: Integer[Array, "T B"], state: DecoderState, memory: Memory, noise: Noise | None = None
    ) -> tuple[DecoderState, Float[Array, "T B F"]]:
        """Reads the symbols before the targets; T = 1 if `stepwise`. Returns (state after them, softmax inputs)."""
        x, fed, carries = self._embed(tokens, noise), state.fed, []
        context = self._context_before(state, memory)
        beside = [] if context is None else [jnp.broadcast_to(context[None], (tokens.shape[0], *context.shape))]
        y = jnp.concatenate([x, *beside], axis=-1) if beside else x
        for index, layer in enumerate(self.decoder):
            if index:
                y = drop(noise, "between", y, index + len(self.decoder))
            carry, y = layer(y, state.carry[index], noise)
            carries.append(carry)
        if self.config.context in JOINED:
            y = jnp.concatenate([y, *beside, x], axis=-1)
        elif self.config.context != "start":
            y = self._attend_after(y, memory)
            fed = y[-1]
        return DecoderState(tuple(carries), fed), drop(noise, "output", y)

    def _embed(self, tokens: Array, noise: Noise | None) -> Array:
        """Embeddings or one-hot vectors; ids if the first layer reads nothing else."""
        if self.config.input != "one_hot":
            return drop(noise, "input", jnp.take(self.target_embedding, tokens, axis=0, mode="clip"), layer=1)
        if self.config.context in (*JOINED, "fed"):
            return jax.nn.one_hot(tokens, self.target_size)
        return tokens

    def _context_before(self, state: DecoderState, memory: Memory) -> Array | None:
        """Context that a step reads beside its symbol, or None."""
        if self.config.context == "every_step":
            return memory.summary
        if self.config.context == "fed":
            return state.fed
        return self._attend_before(state, memory) if self.config.context == "additive" else None

    def _attend_before(self, state: DecoderState, memory: Memory) -> Float[Array, "B P"]:
        before = jnp.broadcast_to(state.carry[-1].h[None], (*memory.outputs.shape[:2], state.carry[-1].h.shape[-1]))
        joined = jnp.concatenate([before, memory.outputs], axis=-1)
        scores = jnp.tanh(joined @ self.attention_kernel + self.attention_bias[None, None]) @ self.attention_vector
        weights = attention_weights(scores, memory.inside[..., None], axis=0)
        self.sow("intermediates", ATTENTION, weights[None, ..., 0])
        return jnp.sum(weights * memory.outputs, axis=0)

    def _attend_after(self, s: Float[Array, "T B H"], memory: Memory) -> Float[Array, "T B H"]:
        scores = jnp.einsum("tbp,sbp->tsb", s @ self.attention_kernel, memory.outputs)
        weights = attention_weights(scores, memory.inside[None], axis=1)
        self.sow("intermediates", ATTENTION, weights)
        context = jnp.einsum("tsb,sbp->tbp", weights, memory.outputs)
        return jnp.tanh(jnp.concatenate([context, s], axis=-1) @ self.mix_kernel)

    def logits(self, features: Float[Array, "T B F"]) -> Float[Array, "T B V"]:
        """Logits of the target symbols."""
        return features @ self.output_kernel + self.output_bias[None, None]

    def loss(
        self,
        features: Float[Array, "T B F"],
        targets: Integer[Array, "T B"],
        weights: Float[Array, "T B"],
        smoothing: Float[Array, ""] | None = None,
    ) -> tuple[Float[Array, ""], Float[Array, "T B"]]:
        """Returns (sum of weights * nats, nats of each target)."""
        return softmax_loss(features, self.output_kernel, self.output_bias, targets, weights, smoothing)

    def __call__(self, tokens: Integer[Array, "S B"], lengths: Int[Array, " B"]) -> Float[Array, "1 B V"]:
        """Logits of the first symbol, given symbol 0."""
        state, memory = self.encode(tokens, lengths)
        return self.logits(self.decode(jnp.zeros((1, tokens.shape[1]), jnp.int32), state, memory)[1])

    def draw(self, key: Key[Array, ""]) -> dict:
        """Draws all parameters, each with its own key, derived from its path."""
        result: Any = self.init(key, jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32))
        return result["params"]


def attention_weights(scores: Array, inside: Array, axis: int) -> Array:
    """Softmax over the positions of the source; 0 at padding."""
    return jax.nn.softmax(jnp.where(inside, scores, jnp.finfo(scores.dtype).min), axis=axis) * inside


def make_encoder_decoder(config: ConfigDict, source_size: int, target_size: int) -> EncoderDecoder:
    """Builds the model of a config. Raises UserError for incompatible values."""
    model, cell = config.model, make_cell(config.model)
    needed = {
        "input": ("one_hot", "embedding"),
        "initial_carry": ("zeros",),
        "output": ("dense", "tied"),
        "pooling": ("last",),
    }
    check_values(model, needed, "pairs")
    if (model.input == "embedding") != (model.embedding_size > 0):
        raise UserError("config.model.embedding_size must be positive with input=embedding, and 0 with input=one_hot")
    if model.output == "tied" and (model.input != "embedding" or model.context in JOINED):
        raise UserError(
            "config.model.output=tied needs config.model.input=embedding and, with pairs, context=start, "
            f"multiplicative or fed, not {model.input} and {model.context}"
        )
    check_tied_size(model, cell)
    if model.context == "additive" and "h" not in cell.carry._fields:
        raise UserError(f"config.model.context=additive needs a cell with h in its state, unlike {model.cell}")
    if any(rate > 0 for rate in config.zoneout.values()):
        raise UserError("config.zoneout must be 0 with pairs")
    check_cell(config, cell)
    return EncoderDecoder(FrozenConfigDict(model), FrozenConfigDict(config.init), source_size, target_size)
