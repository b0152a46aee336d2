"""How often a decoder in training reads the true symbol before, not its own: a probability that falls with the steps.

Source: Bengio et al. (2015), scheduled sampling. Here all rows of a batch share the draw of a step.

config.loss.forcing_schedule: p = config.loss.teacher_forcing, k = config.loss.forcing_steps, at step i from 0
  constant         p
  linear           p (1 - i / k), then 0
  exponential      p exp(-i / k)
  inverse_sigmoid  p k / (k + exp(i / k))
"""

from typing import NamedTuple

import jax.numpy as jnp
import ml_collections
from jaxtyping import Array, Float, Int

from lm.errors import UserError

SCHEDULES = {
    "constant": lambda i, k: 1.0,
    "linear": lambda i, k: jnp.maximum(1 - i / k, 0.0),
    "exponential": lambda i, k: jnp.exp(-i / k),
    "inverse_sigmoid": lambda i, k: k / (k + jnp.exp(i / k)),
}


class Forcing(NamedTuple):
    """first: the probability that falls; steps: k"""

    first: float
    schedule: str
    steps: int

    @property
    def always(self) -> bool:
        """Whether every step reads the true symbol."""
        return self.first == 1.0 and self.schedule == "constant"

    def probability(self, step: Int[Array, ""]) -> Float[Array, ""] | float:
        """At a training step, from 0."""
        return self.first * SCHEDULES[self.schedule](step, self.steps)


ALWAYS = Forcing(1.0, "constant", 0)


def make_forcing(loss: ml_collections.ConfigDict) -> Forcing:
    """That of config.loss. Raises UserError for a schedule without steps, or steps without one."""
    if (loss.forcing_schedule == "constant") != (loss.forcing_steps == 0):
        raise UserError(
            "config.loss.forcing_steps must be 0 with config.loss.forcing_schedule=constant, else at least 1, not "
            f"{loss.forcing_steps} with {loss.forcing_schedule}"
        )
    return Forcing(loss.teacher_forcing, loss.forcing_schedule, loss.forcing_steps)
