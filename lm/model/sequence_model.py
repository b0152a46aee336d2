"""The model of labelled sequences: tokens -> embedding (-> convolution) -> recurrent layers -> pooling -> output.

The output is a softmax, or a CRF over the tags of all tokens (lm/model/crf.py).

Sequences have lengths [B] and are padded at the end to T. Padding does not affect results: a forward layer reads it
after the last token, a backward layer starts at the last token, and pooling ignores it. With pooling=none, every token
has a label; otherwise, every sequence has one.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, Key
from ml_collections import ConfigDict, FrozenConfigDict

from lm.cells.kinds import Carry, Cell, zero_carry
from lm.cells.table import make_cell
from lm.data.examples import OUTSIDE
from lm.data.word_shapes import SHAPES
from lm.errors import UserError
from lm.model import crf
from lm.model.dropout import Noise, drop, drop_rows
from lm.model.initialisers import Separate, without_initialisers
from lm.model.layer import RecurrentLayer, check_cell, check_values, mask_of
from lm.model.losses import softmax_loss

DIRECTIONS = ("forward", "both")  # both: the outputs of a forward and a backward layer, concatenated
POOLINGS = ("last", "mean", "max", "attention", "none")
# learned: a vector for each field of a layer's carry that the cell reads, initialised by config.init.vector
INITIAL_CARRIES = ("zeros", "first_unit_one", "learned")


class SequenceModel(Separate):
    """Classifies sequences, or their tokens.

    config, init_config: config.model and config.init; vocabulary_size: V; labels: C
    window: number of adjacent tokens that a step reads (config.data.window)
    zoneout: as in LanguageModel
    shapes: the word shape of each symbol (lm/data/word_shapes.py), if config.model.shape_size is positive
    """

    config: FrozenConfigDict
    init_config: FrozenConfigDict
    vocabulary_size: int
    labels: int
    zoneout: tuple[tuple[str, float], ...] = ()
    window: int = 1
    shapes: bytes = b""

    def for_training(self) -> "SequenceModel":
        return without_initialisers(self, zoneout=())

    @property
    def cell(self) -> Cell:
        return make_cell(self.config)

    @property
    def per_token(self) -> bool:
        """Whether every token has a label, rather than every sequence."""
        return self.config.pooling == "none"

    def setup(self):
        init, config = self.init_config, self.config
        self.embedding = self.parameter("embedding", "embedding", self.vocabulary_size, config.embedding_size)
        if self.window > 1:
            self.outside = self.parameter("outside", "embedding", 1, config.embedding_size)
        size = self.window * config.embedding_size + config.shape_size
        if config.shape_size:
            self.shape_embedding = self.parameter("shape_embedding", "embedding", len(SHAPES), config.shape_size)
        if config.convolution:
            filters, width, _ = config.convolution
            self.filter = self.parameter("filter", "input", width * size, filters)
            self.filter_bias = self.parameter("filter_bias", "output_bias", filters)
            size = filters
        ways = ("", "_backward") if config.direction == "both" else ("",)
        layers, count = [], len(config.hidden)
        for index, units in enumerate(config.hidden):
            layers.append(
                [
                    RecurrentLayer(
                        self.cell, size, units, init, index + count * way, self.zoneout, name=f"layer_{index}{suffix}"
                    )
                    for way, suffix in enumerate(ways)
                ]
            )
            size = len(ways) * self.cell.output_size(units)
        self.layers = layers
        if config.initial_carry == "learned":
            self.starts = [[self._learned_carry(layer) for layer in ways] for ways in layers]
        if config.pooling == "attention":
            self.query = self.parameter("query", "output", size, 1)
        if config.output == "identity":
            return
        outputs = 1 if config.output == "sigmoid" else self.labels
        self.output_kernel = self.parameter("output_kernel", "output", size, outputs)
        self.output_bias = self.parameter("output_bias", "output_bias", outputs)
        if config.output == "crf":
            shapes = {"transitions": (outputs, outputs), "start": (outputs,), "end": (outputs,)}
            scores = {name: self.parameter(name, "output_bias", *shape) for name, shape in shapes.items()}
            self.chain = crf.Chain(**scores)

    def _learned_carry(self, layer: RecurrentLayer) -> Carry:
        """A layer's initial carry: a parameter [1, *] for each field that its cell reads, else zeros."""
        start = zero_carry(self.cell, 1, layer.units)
        fields = start._fields if self.cell.read is None else self.cell.read
        return start._replace(
            **{name: self.parameter(f"{layer.name}_{name}", "vector", *getattr(start, name).shape) for name in fields}
        )

    def features(
        self, tokens: Integer[Array, "R B"], lengths: Int[Array, " B"], noise: Noise | None = None
    ) -> Float[Array, "N B P"]:
        """Features for the output layer: N is T, or 1 after pooling. Values at padding are meaningless.

        With windows, R = T + window - 1, and tokens before and after a sequence are OUTSIDE.
        """
        x = jnp.take(self.embedding, tokens, axis=0, mode="clip")
        x = drop_rows(noise, x, tokens, self.vocabulary_size)
        if self.window > 1:
            x = side_by_side(jnp.where((tokens == OUTSIDE)[..., None], self.outside[None], x), self.window)
        if self.config.shape_size:
            shapes = jnp.take(jnp.asarray(np.frombuffer(self.shapes, np.uint8)), tokens, mode="clip")
            x = jnp.concatenate([x, jnp.take(self.shape_embedding, shapes, axis=0)], axis=-1)
        x = drop(noise, "input", x)
        if self.config.convolution:
            x, lengths = self._convolve(x, lengths)
        for index in range(len(self.layers)):
            if index:
                x = drop(noise, "between", x, index)
            x = self._run_layer(index, x, lengths, noise)
        if not self.per_token:
            x = self._pool(x, lengths)[None]
        return drop(noise, "output", x)

    def _convolve(self, x: Array, lengths: Array) -> tuple[Array, Array]:
        """Convolves zero-padded sequences, applies relu, and max-pools over time. Returns (outputs, lengths)."""
        _, width, pool = self.config.convolution
        steps = x.shape[0]
        x = jnp.where(mask_of(lengths, steps)[..., None], x, 0.0)
        before = (width - 1) // 2
        padded = jnp.pad(x, ((before, width - 1 - before), (0, 0), (0, 0)))
        y = jax.nn.relu(side_by_side(padded, width) @ self.filter + self.filter_bias[None, None])
        y = jnp.where(mask_of(lengths, steps)[..., None], y, 0.0)  # relu is at least 0: padding changes no maximum
        y = jnp.pad(y, ((0, -steps % pool), (0, 0), (0, 0)))
        return y.reshape(-1, pool, *y.shape[1:]).max(axis=1), -(-lengths // pool)

    def _run_layer(self, index: int, x: Array, lengths: Array, noise: Noise | None) -> Array:
        outputs = []
        for way, layer in enumerate(self.layers[index]):
            read = reverse_sequences(x, lengths) if way else x
            start = zero_carry(self.cell, x.shape[1], layer.units)
            if self.config.initial_carry == "learned":
                start = jax.tree.map(lambda zeros, row: zeros + row, start, self.starts[index][way])
            _, y = layer(read, start, noise)
            outputs.append(reverse_sequences(y, lengths) if way else y)
        return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=-1)

    def _pool(self, x: Float[Array, "T B P"], lengths: Int[Array, " B"]) -> Float[Array, "B P"]:
        """One vector per sequence.

        last       the output at the last token, or for a backward layer, at the first token, which it reads last
        mean, max  mean or maximum of the outputs at all tokens
        attention  mean of the outputs with weights softmax(x . query) (Yang et al. 2016, without the hidden layer)
        """
        inside = mask_of(lengths, x.shape[0])[..., None]
        pooling = self.config.pooling
        if pooling == "last":
            last = jnp.maximum(lengths - 1, 0)
            final = jnp.take_along_axis(x, last[None, :, None], axis=0)[0]
            if self.config.direction == "forward":
                return final
            half = x.shape[-1] // 2
            return jnp.concatenate([final[:, :half], x[0, :, half:]], axis=-1)
        if pooling == "max":
            return jnp.where(inside | (lengths == 0)[None, :, None], x, -jnp.inf).max(axis=0)
        if pooling == "mean":
            return jnp.where(inside, x, 0.0).sum(axis=0) / jnp.maximum(lengths, 1)[:, None]
        scores = jnp.where(inside, x @ self.query, jnp.finfo(x.dtype).min)
        return (jax.nn.softmax(scores, axis=0) * x).sum(axis=0)

    def _output(self) -> tuple[Float[Array, "P C"], Float[Array, " C"]]:
        """Kernel and bias of the softmax. With output=sigmoid, the logit of the first class is 0."""
        if self.config.output == "identity":
            return jnp.eye(self.labels), jnp.zeros(self.labels)
        if self.config.output == "sigmoid":
            return jnp.pad(self.output_kernel, ((0, 0), (1, 0))), jnp.pad(self.output_bias, (1, 0))
        return self.output_kernel, self.output_bias

    def __call__(self, tokens: Integer[Array, "R B"], lengths: Int[Array, " B"]) -> Float[Array, "N B C"]:
        """Log-probabilities of the labels, without noise; N as in `features`. crf: each tag's marginal."""
        scores = self._scores(tokens, lengths)
        if self.config.output == "crf":
            return crf.log_marginals(self.chain, scores, lengths)
        return jax.nn.log_softmax(scores)

    def predict(
        self, tokens: Integer[Array, "R B"], lengths: Int[Array, " B"], labels: Integer[Array, "N B"]
    ) -> tuple[Float[Array, "N B"], Int[Array, "N B"]]:
        """Returns (nats of each label, most probable labels), without noise. crf: labels of the likeliest sequence."""
        if self.config.output == "crf":
            scores = self._scores(tokens, lengths)
            return crf.tag_nats(self.chain, scores, lengths, labels), crf.best_tags(self.chain, scores, lengths)
        log_probs = self(tokens, lengths)
        nats = -jnp.take_along_axis(log_probs, labels[..., None].astype(jnp.int32), axis=-1)[..., 0]
        return nats, jnp.argmax(log_probs, axis=-1)

    def _scores(self, tokens, lengths, noise: Noise | None = None) -> Float[Array, "N B C"]:
        kernel, bias = self._output()
        return self.features(tokens, lengths, noise) @ kernel + bias[None, None]

    def loss(
        self,
        tokens: Integer[Array, "R B"],
        lengths: Int[Array, " B"],
        labels: Integer[Array, "N B"],
        weights: Float[Array, "N B"],
        noise: Noise | None = None,
        smoothing: Float[Array, ""] | None = None,
    ) -> tuple[Float[Array, ""], Float[Array, "N B"]]:
        """Returns (sum of weights * nats, nats of each label). Labels of weight 0 do not matter.

        crf: nats of each tag given the tag before it; weights must be equal within a sequence
        """
        if self.config.output == "crf":
            nats = crf.tag_nats(self.chain, self._scores(tokens, lengths, noise), lengths, labels)
            return jnp.sum(weights * nats), nats
        x = self.features(tokens, lengths, noise)
        return softmax_loss(x, *self._output(), labels, weights, smoothing)

    def draw(self, key: Key[Array, ""]) -> dict:
        """Draws all parameters, each with its own key, derived from its path."""
        result: Any = self.init(key, jnp.zeros((self.window, 1), jnp.int32), jnp.ones(1, jnp.int32))
        return result["params"]


def side_by_side(x: Float[Array, "R B E"], width: int) -> Float[Array, "R-{width}+1 B E*{width}"]:
    """Concatenates the vectors of every `width` consecutive steps."""
    steps = x.shape[0] - width + 1
    return jnp.concatenate([x[offset : offset + steps] for offset in range(width)], axis=-1)


def reverse_sequences(x: Array, lengths: Int[Array, " B"]) -> Array:
    """Reverses each sequence of x [T, B, ...]. Padding stays at the end."""
    time = jnp.arange(x.shape[0])[:, None]
    source = jnp.where(time < lengths[None], lengths[None] - 1 - time, time)
    return jnp.take_along_axis(x, source.reshape(*source.shape, *[1] * (x.ndim - 2)), axis=0)


def make_sequence_model(config: ConfigDict, vocabulary_size: int, labels: int, shapes: bytes = b"") -> SequenceModel:
    """Builds the model of a config. Raises UserError for incompatible values. shapes: as in SequenceModel"""
    model = config.model
    special = ("crf",) if model.pooling == "none" else ("sigmoid",) if labels == 2 else ()
    needed = {"input": ("embedding",), "initial_carry": ("zeros", "learned"), "output": ("dense", "identity", *special)}
    check_values(model, needed, "these labels")
    if model.output == "crf" and config.loss.label_smoothing:
        raise UserError("config.loss.label_smoothing must be 0 with config.model.output=crf")
    if not model.embedding_size:
        raise UserError("config.model.embedding_size must be at least 1, not 0")
    if len(model.convolution) not in (0, 3):
        raise UserError(f"config.model.convolution must be () or (filters, width, pool), not {model.convolution}")
    if model.convolution and model.pooling == "none":
        raise UserError("config.model.convolution shortens sequences, so it needs one label per sequence")
    if not config.data.window % 2 or (config.data.window > 1 and config.data.padding != "end"):
        raise UserError(f"config.data.window must be odd, and 1 unless padding=end, not {config.data.window}")
    cell = make_cell(model)
    logits = cell.output_size(model.hidden[-1]) * (2 if model.direction == "both" else 1)
    if model.output == "identity" and logits != labels:
        raise UserError(
            f"config.model.output=identity needs a last layer with {labels} outputs, one per label, not {logits}"
        )
    check_cell(config, cell)
    zoneout = tuple((name, rate) for name, rate in sorted(config.zoneout.items()) if rate > 0)
    size = config.data.window
    return SequenceModel(
        FrozenConfigDict(model), FrozenConfigDict(config.init), vocabulary_size, labels, zoneout, size, shapes
    )
