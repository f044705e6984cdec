"""FactorVAE: total correlation by a critic's density ratio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from vae_jax import prng
from vae_jax.model import Context, Metrics
from vae_jax.objectives.base import Terms
from vae_jax.objectives.critic import Adversarial, logit
from vae_jax.options.ranges import EACH_AT_LEAST_ONE, NotNegative
from vae_jax.spaces import Positive, Real, Space, UnitInterval


def permuted(key: jax.Array, z: jax.Array) -> jax.Array:
    """Returns z [B, D] with every dimension shuffled over the batch on its own: samples of prod_j q(z_j)."""
    # `independent` shuffles each column apart. Moving whole rows would give samples of q(z) again.
    return jax.random.permutation(key, z, axis=0, independent=True)


@dataclass(frozen=True)
class Factor(Adversarial):
    """FactorVAE: distortion + rate + gamma * TC, the TC from a critic that knows permuted codes (arXiv:1802.05983).

    Example:
      >>> objective = Factor(gamma=10.0, hidden=(4,))
      >>> critic = jax.tree.map(jnp.zeros_like, objective.critic_init(jax.random.key(0), 2))
      >>> critic["layer1"]["b"] = jnp.array([0.5])  # ln D / (1 - D) = 0.5 for every code
      >>> ctx = Context(0, jnp.arange(1), objective.hyper())
      >>> objective.critic_cost(critic, jnp.ones((1, 2)), ctx)[0].tolist()  # 10 * 0.5, added to the ELBO
      [5.0]
    """

    gamma: Annotated[float, NotNegative()] = 10.0
    """Weight of the total correlation."""
    hidden: Annotated[tuple[int, ...], EACH_AT_LEAST_ONE] = (1000,) * 6
    """Widths of the critic's hidden layers (leaky ReLU). It trains with `critic_optimizer`."""

    spaces: ClassVar[tuple[type[Space], ...]] = (Real, Positive, UnitInterval)

    def hyper(self) -> dict[str, float]:
        return {"gamma": self.gamma}

    def loss(self, terms: Terms, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (distortion + s(step) rate, no metrics): [B] in nats; `critic_cost` adds the total correlation."""
        return terms.distortion + self.schedule(ctx.step) * terms.rate, {}

    def critic_cost(self, critic: Any, z: jax.Array, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (s(step) gamma ln D / (1 - D), metrics): [B] in nats (arXiv:1802.05983, eq. 3)."""
        # ln D - ln(1 - D) is the logit itself: the log density ratio of q(z) to prod_j q(z_j).
        tc = logit(critic, z)
        return self.schedule(ctx.step) * ctx.hyper["gamma"] * tc, {"tc": jnp.mean(tc)}

    def critic_pair(
        self, key: jax.Array, z: jax.Array, sample_prior: Callable[[jax.Array, int], jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """Returns (codes, permuted codes) of one batch, where arXiv:1802.05983, alg. 2 takes two."""
        del sample_prior
        # Of the global batch: permuting within shards would mix fewer examples.
        return z, permuted(prng.site_key(key, "permutation"), z)
