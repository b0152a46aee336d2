"""Scheduled sampling: the probability that a decoder in training reads the true previous symbol, not its own output.

Source: Bengio et al. (2015). Here all rows of a batch share one draw per time step.

The probability at training step i (from 0), by config.loss.forcing_schedule; p is teacher_forcing, k forcing_steps:
  constant         p
  linear           p (1 - i / k), then 0
  exponential      p exp(-i / k)
  inverse_sigmoid  p k / (k + exp(i / k))
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from lm.errors import UserError

SCHEDULES = {
    "constant": lambda i, k: 1.0,
    "linear": lambda i, k: jnp.maximum(1 - i / k, 0.0),
    "exponential": lambda i, k: jnp.exp(-i / k),
    "inverse_sigmoid": lambda i, k: k / (k + jnp.exp(i / k)),
}


class Forcing(NamedTuple):
    """Settings of config.loss. first, steps: p and k of the formulas at the top of this file"""

    first: float
    schedule: str
    steps: int

    @property
    def always(self) -> bool:
        """Whether every time step reads the true symbol."""
        return self.first == 1.0 and self.schedule == "constant"

    def probability(self, step: Int[Array, ""]) -> Float[Array, ""] | float:
        """Probability of reading the true symbol at a training step (from 0)."""
        return self.first * SCHEDULES[self.schedule](step, self.steps)


ALWAYS = Forcing(1.0, "constant", 0)


def make_forcing(loss: ConfigDict) -> Forcing:
    """Reads config.loss. Raises UserError if a constant schedule has forcing_steps, or another lacks them."""
    if (loss.forcing_schedule == "constant") != (loss.forcing_steps == 0):
        raise UserError(
            f"config.loss.forcing_steps={loss.forcing_steps} does not fit forcing_schedule={loss.forcing_schedule}: "
            "constant needs 0, the others at least 1"
        )
    return Forcing(loss.teacher_forcing, loss.forcing_schedule, loss.forcing_steps)
