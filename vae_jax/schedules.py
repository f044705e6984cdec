"""Annealing schedules of the KL weight: multiplicative factors in [0, 1] as functions of the step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp

from vae_jax.options.ranges import AtLeast, Between, NotNegative, Steps


@dataclass(frozen=True)
class Schedule:
    """Base of the schedule configs."""

    def __call__(self, step: jax.Array) -> jax.Array:
        """Returns the factor float32 at a step int32."""
        raise TypeError(f"{type(self).__name__} must define __call__")


@dataclass(frozen=True)
class Constant(Schedule):
    """Always 1."""

    def __call__(self, step: jax.Array) -> jax.Array:
        """Returns 1.0 at every step."""
        return jnp.ones_like(step, jnp.float32)


@dataclass(frozen=True)
class Linear(Schedule):
    """`start` for `hold` steps, from there to 1 in `steps` steps, then 1 (KL warm-up, arXiv:1511.06349)."""

    steps: Annotated[int, Steps(1)] = 10_000
    """Length of the warm-up, in steps."""
    start: Annotated[float, NotNegative()] = 0.0
    """Factor at step 0. A start above 1 anneals downwards."""
    hold: Annotated[int, Steps(0)] = 0
    """Steps at `start` before the factor moves."""

    def __call__(self, step: jax.Array) -> jax.Array:
        """Returns start + (1 - start) * clip((step - hold) / steps, 0, 1)."""
        if self.hold:
            step = step - self.hold
        return self.start + (1.0 - self.start) * jnp.clip(step / self.steps, 0.0, 1.0)


@dataclass(frozen=True)
class Cyclical(Schedule):
    """`cycles` ramps from 0 to 1 over `steps` steps, each rising for `ratio` of its period (arXiv:1903.10145)."""

    steps: Annotated[int, Steps(1)] = 40_000
    """Length of all cycles together, in steps; afterwards the factor stays 1."""
    cycles: Annotated[int, AtLeast(1)] = 4
    """Number of cycles (M)."""
    ratio: Annotated[float, Between(0, 1, "(]")] = 0.5
    """Share of a cycle in which the factor rises (R)."""

    def __call__(self, step: jax.Array) -> jax.Array:
        """Returns min(tau / ratio, 1) with tau the position inside the cycle, in [0, 1)."""
        # In integers: rounding of step / steps would leave the end of one ramp (1) where the next begins (0).
        tau = jnp.mod(jnp.minimum(step, self.steps) * self.cycles, self.steps) / self.steps
        return jnp.where(step < self.steps, jnp.minimum(tau / self.ratio, 1.0), 1.0)


SCHEDULES = {"constant": Constant, "linear": Linear, "cyclical": Cyclical}
