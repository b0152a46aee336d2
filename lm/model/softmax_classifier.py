"""A linear softmax classifier for vectors: softmax(x W + b)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, Key
from ml_collections import FrozenConfigDict

from lm.model.initialisers import Separate
from lm.model.losses import softmax_loss


class SoftmaxClassifier(Separate):
    """init_config: config.init; inputs: D; labels: C"""

    init_config: FrozenConfigDict
    inputs: int
    labels: int

    def setup(self):
        self.output_kernel = self.parameter("output_kernel", "output", self.inputs, self.labels)
        self.output_bias = self.parameter("output_bias", "output_bias", self.labels)

    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B C"]:
        """Log-probabilities of the labels."""
        return jax.nn.log_softmax(x @ self.output_kernel + self.output_bias[None])

    def loss(
        self, x: Float[Array, "B D"], labels: Integer[Array, " B"], weights: Float[Array, " B"], noise, terms
    ) -> tuple[Float[Array, ""], Float[Array, " B"]]:
        """Returns (sum of weights * nats, nats of each label). Ignores noise and terms."""
        return softmax_loss(x, self.output_kernel, self.output_bias, labels, weights)

    def draw(self, key: Key[Array, ""]) -> dict:
        """Draws all parameters."""
        return self.init(key, jnp.zeros((1, self.inputs)))["params"]
