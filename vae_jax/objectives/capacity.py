"""Capacity control: the rate is held at a target that rises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp

from vae_jax import collectives
from vae_jax.model import Context, Metrics
from vae_jax.objectives.base import Objective, Terms
from vae_jax.options.ranges import NotNegative, Steps


@dataclass(frozen=True)
class Capacity(Objective):
    """Annealed capacity: gamma |KL - C(step)|, C rising from 0 (Burgess et al., arXiv:1804.03599).

    Example:
      >>> objective = Capacity(gamma=10.0, capacity=4.0, capacity_steps=100)
      >>> terms = Terms(*[None] * 4, distortion=jnp.array([10.0, 20.0]), rate=jnp.array([1.0, 5.0]), kl_per_dim=None)
      >>> ctx = Context(50, jnp.arange(2), objective.hyper())  # C = 2
      >>> objective.loss(terms, ctx)[0].tolist()  # + 10 |3 - 2|
      [20.0, 30.0]
    """

    gamma: Annotated[float, NotNegative()] = 1000.0
    """Weight of the distance between the rate and the capacity."""
    capacity: Annotated[float, NotNegative()] = 25.0
    """Final capacity C, nats."""
    capacity_steps: Annotated[int, Steps(1)] = 100_000
    """Steps over which the capacity rises from 0, linearly."""

    couples: ClassVar[bool] = True

    def hyper(self) -> dict[str, float]:
        # Traced, so that a sweep over them shares one compiled program; `capacity_steps` is compiled in.
        return {"gamma": self.gamma, "capacity": self.capacity}

    def loss(self, terms: Terms, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (distortion + s(step) gamma |E KL - C(step)|, metrics): [B] in nats (arXiv:1804.03599, eq. 8).

        The rate is the mean over the global batch: the capacity is that of the channel, not of each image.
        """
        # C(step) in nats: a linear ramp, then constant.
        target = ctx.hyper["capacity"] * jnp.clip(ctx.step / self.capacity_steps, 0.0, 1.0)
        # The mean comes before the absolute value, over all devices: per shard, deviations of opposite sign would add
        # up where they should cancel, and the loss would depend on the number of devices.
        rate = collectives.pmean(jnp.mean(terms.rate), ctx.axis_name)
        # A scalar. Added to each [B] entry, it counts once in the batch mean.
        penalty = self.schedule(ctx.step) * ctx.hyper["gamma"] * jnp.abs(rate - target)
        return terms.distortion + penalty, {"capacity": target}
