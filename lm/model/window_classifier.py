"""Classifies the middle token of a window: softmax(tanh(x W + b1) U + b2), where x joins the window's embeddings.

Source: Socher et al. (2015), CS224d, assignment 2, question 2; after Collobert et al. (2011).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, Key
from ml_collections import ConfigDict, FrozenConfigDict

from lm.errors import UserError
from lm.model.dropout import Noise, drop
from lm.model.initialisers import Separate
from lm.model.layer import check_values

# Values of config.model.output. config.keep_prob.output drops tanh units and, with dropped_logits, also logits.
OUTPUTS = ("dense", "dropped_logits")


class WindowClassifier(Separate):
    """config, init_config: config.model and config.init; vocabulary_size: V; labels: C; window: D tokens"""

    config: FrozenConfigDict
    init_config: FrozenConfigDict
    vocabulary_size: int
    labels: int
    window: int

    def setup(self):
        size, units = self.config.embedding_size, self.config.hidden[0]
        self.embedding = self.parameter("embedding", "embedding", self.vocabulary_size, size)
        self.input_kernel = self.parameter("input_kernel", "input", self.window * size, units)
        self.bias = self.parameter("bias", "bias", units)
        self.output_kernel = self.parameter("output_kernel", "output", units, self.labels)
        self.output_bias = self.parameter("output_bias", "output_bias", self.labels)

    def __call__(self, x: Integer[Array, "B D"], noise: Noise | None = None) -> Float[Array, "B C"]:
        """Log-probabilities of the labels."""
        joined = jnp.take(self.embedding, x, axis=0, mode="clip").reshape(x.shape[0], -1)
        hidden = jnp.tanh(joined @ self.input_kernel + self.bias[None])[None]  # as one time step: drop reads [T, B, H]
        logits = drop(noise, "output", hidden) @ self.output_kernel + self.output_bias[None, None]
        if self.config.output == "dropped_logits":
            logits = drop(noise, "output", logits, layer=1)  # layer=1: a separate mask
        return jax.nn.log_softmax(logits[0])

    def loss(
        self,
        x: Integer[Array, "B D"],
        labels: Integer[Array, " B"],
        weights: Float[Array, " B"],
        noise: Noise | None,
        terms: dict[str, Float[Array, ""]],
    ) -> tuple[Float[Array, ""], Float[Array, " B"]]:
        """Returns (sum of weights * nats plus L2 penalty, nats of each label)."""
        log_probs = self(x, noise)
        nats = -jnp.take_along_axis(log_probs, labels[:, None].astype(jnp.int32), axis=1)[:, 0]
        return jnp.sum(weights * nats) + terms.get("l2", 0.0) * self.half_squares(), jax.lax.stop_gradient(nats)

    def half_squares(self) -> Float[Array, ""]:
        """Half the sum of squares of W and U, which config.penalty.l2 multiplies."""
        return 0.5 * (jnp.sum(self.input_kernel**2) + jnp.sum(self.output_kernel**2))

    def draw(self, key: Key[Array, ""]) -> dict:
        """Draws all parameters."""
        result: Any = self.init(key, jnp.zeros((1, self.window), jnp.int32))
        return result["params"]


def make_window_classifier(config: ConfigDict, vocabulary_size: int, labels: int) -> WindowClassifier:
    """Builds the model of a config. Raises UserError for incompatible values."""
    model = config.model
    if model.input != "embedding" or not model.embedding_size:
        raise UserError("config.task=windows needs config.model.input=embedding and embedding_size of at least 1")
    if len(model.hidden) != 1:
        raise UserError(f"config.task=windows needs one hidden layer: config.model.hidden=(units,), not {model.hidden}")
    check_values(model, {"output": OUTPUTS}, "windows")
    return WindowClassifier(
        FrozenConfigDict(model), FrozenConfigDict(config.init), vocabulary_size, labels, config.data.window
    )
