"""Capacity control of real and discrete latent channels apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp

from vae_jax import collectives
from vae_jax.model import Context, Metrics
from vae_jax.objectives.base import Objective, Terms
from vae_jax.options.ranges import NotNegative, Steps
from vae_jax.spaces import Mixed, Space


@dataclass(frozen=True)
class JointCapacity(Objective):
    """JointVAE: gamma |KL - C(step)| of the real and of the discrete channel, each its own C (arXiv:1804.00104).

    Example:
      >>> from vae_jax.distributions import DiagGaussian
      >>> from vae_jax.distributions.categorical import Joint, OneHotCategorical
      >>> q = Joint(DiagGaussian(*jnp.zeros((2, 1, 1))), (OneHotCategorical(jnp.zeros((1, 1, 2))),))
      >>> kl = jnp.array([[3.0, 0.5]])  # of one real and one categorical variable
      >>> terms = Terms(None, None, q, None, distortion=jnp.array([10.0]), rate=jnp.sum(kl, -1), kl_per_dim=kl)
      >>> objective = JointCapacity(gamma=10.0, capacity=4.0, discrete_capacity=0.5, capacity_steps=100)
      >>> ctx = Context(50, jnp.arange(1), objective.hyper())  # C_z = 2, C_c = 0.25
      >>> objective.loss(terms, ctx)[0].tolist()  # 10 + 10 (|3 - 2| + |0.5 - 0.25|)
      [22.5]
    """

    gamma: Annotated[float, NotNegative()] = 30.0
    """Weight of the distance between each channel's KL and its capacity."""
    capacity: Annotated[float, NotNegative()] = 5.0
    """Final capacity of the real variables together, nats."""
    discrete_capacity: Annotated[float, NotNegative()] = 5.0
    """Final capacity of the categorical variables together, nats; never more than they can hold, the sum of ln K."""
    capacity_steps: Annotated[int, Steps(1)] = 25_000
    """Steps over which both capacities rise from 0, linearly."""

    by_dimension: ClassVar[bool] = True
    couples: ClassVar[bool] = True
    spaces: ClassVar[tuple[type[Space], ...]] = (Mixed,)

    def hyper(self) -> dict[str, float]:
        return {"gamma": self.gamma, "capacity": self.capacity, "discrete_capacity": self.discrete_capacity}

    def loss(self, terms: Terms, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (distortion + s(step) gamma (|KL_z - C_z| + |KL_c - C_c|), metrics) (arXiv:1804.00104, eq. 6).

        KL_z and KL_c are means over the global batch, as in the paper: the capacity is that of the channel, and one
        image may use more of it than another.
        """
        assert terms.kl_per_dim is not None
        # `kl_per_dim` lists the real variables first, then one entry per categorical variable.
        real = terms.posterior.gaussian.mean.shape[-1]
        # A categorical variable carries at most ln K nats. Past that the target cannot be reached, and |KL - C| would
        # press on saturated probabilities for the rest of the run.
        limit = sum(jnp.log(part.logits.shape[-1]) for part in terms.posterior.categorical)
        rise = jnp.clip(ctx.step / self.capacity_steps, 0.0, 1.0)
        # Means over the global batch before the absolute values, as in `Capacity`: scalars, the same on every device.
        kl = jnp.mean(terms.kl_per_dim, 0)
        channels = collectives.pmean((jnp.sum(kl[:real]), jnp.sum(kl[real:])), ctx.axis_name)
        targets = rise * ctx.hyper["capacity"], jnp.minimum(rise * ctx.hyper["discrete_capacity"], limit)
        # Two channels, two targets: with one common target the discrete variables would stay unused.
        distance = sum(jnp.abs(rate - target) for rate, target in zip(channels, targets, strict=True))
        metrics = {
            "rate_continuous": channels[0],
            "rate_discrete": channels[1],
            "capacity": targets[0],
            "discrete_capacity": targets[1],
        }
        return terms.distortion + self.schedule(ctx.step) * ctx.hyper["gamma"] * distance, metrics
