"""Wasserstein autoencoders beside the MMD: an adversarial penalty, and a sliced distance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax

from vae_jax import prng
from vae_jax.distributions import kernels
from vae_jax.model import Context, Metrics
from vae_jax.objectives.base import Objective, Terms
from vae_jax.objectives.critic import Adversarial, logit
from vae_jax.objectives.mmd import codes_and_prior
from vae_jax.options.ranges import AtLeast, NotNegative
from vae_jax.spaces import Positive, Real, Space, Sphere, UnitInterval


@dataclass(frozen=True)
class WaeGAN(Adversarial):
    """Adversarial autoencoder (WAE-GAN): a critic tells codes from draws of the prior (arXiv:1511.05644).

    Example:
      >>> objective = WaeGAN(lam=10.0, hidden=(4,))
      >>> critic = jax.tree.map(lambda leaf: 0.0 * leaf, objective.critic_init(jax.random.key(0), 2))
      >>> ctx, z = Context(0, None, objective.hyper()), jax.random.normal(jax.random.key(1), (1, 2))
      >>> cost, _ = objective.critic_cost(critic, z, ctx)  # D = 1/2 everywhere
      >>> round(float(cost[0]), 4)  # 10 ln 2, added to the distortion
      6.9315
    """

    lam: Annotated[float, NotNegative()] = 10.0
    """lambda, weight of the encoder's adversarial loss -ln D(z)."""

    rateless: ClassVar[bool] = True
    spaces: ClassVar[tuple[type[Space], ...]] = (Real, Positive, UnitInterval, Sphere)

    def hyper(self) -> dict[str, float]:
        return {"lam": self.lam}

    def loss(self, terms: Terms, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (distortion, no metrics): [B] in nats; `critic_cost` holds q(z) at the prior (arXiv:1711.01558)."""
        del ctx
        return terms.distortion, {}

    def critic_cost(self, critic: Any, z: jax.Array, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (-s(step) lam ln D(z), no metrics): [B] in nats (arXiv:1711.01558, alg. 1)."""
        # The loss that does not saturate: ln(1 - D) would have no gradient where the critic is sure, -ln D has its
        # largest there. -ln D = softplus(-logit).
        return self.schedule(ctx.step) * ctx.hyper["lam"] * jax.nn.softplus(-logit(critic, z)), {}

    def critic_pair(
        self, key: jax.Array, z: jax.Array, sample_prior: Callable[[jax.Array, int], jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """Returns (as many draws of the prior as codes, the codes). A trained prior learns nothing here."""
        return sample_prior(prng.site_key(key, "prior"), len(z)), z


@dataclass(frozen=True)
class SlicedWAE(Objective):
    """Sliced Wasserstein autoencoder: distances of sorted projections of codes and prior draws (arXiv:1804.01947).

    Example:
      >>> import jax.numpy as jnp
      >>> z = jnp.array([[0.0], [2.0]])
      >>> terms = Terms(None, z, None, None, distortion=jnp.full(2, 10.0), rate=jnp.zeros(2), kl_per_dim=None)
      >>> terms = terms._replace(key=jax.random.key(0), sample_prior=lambda key, n: z[::-1] + 0.5)
      >>> objective = SlicedWAE(lam=4.0)
      >>> loss, _ = objective.loss(terms, Context(0, jnp.arange(2), objective.hyper()))
      >>> round(float(loss[0]), 4)  # 10 + 4 * 0.5^2: each code moves by 0.5
      11.0
    """

    lam: Annotated[float, NotNegative()] = 10.0
    """lambda, weight of the squared distance."""
    projections: Annotated[int, AtLeast(1)] = 50
    """Random directions per step, L."""

    couples: ClassVar[bool] = True
    path: ClassVar[bool] = True
    noisy: ClassVar[bool] = True
    rateless: ClassVar[bool] = True
    spaces: ClassVar[tuple[type[Space], ...]] = (Real, Positive, UnitInterval, Sphere)

    def hyper(self) -> dict[str, float]:
        return {"lam": self.lam}

    def loss(self, terms: Terms, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (distortion + s(step) lam SW^2(q(z), p(z)), metrics): [B] in nats (arXiv:1804.01947, eq. 16)."""
        # Sorting matches quantiles one to one, so there must be as many draws as codes.
        codes, drawn = codes_and_prior(terms, ctx)
        # New directions at every step, the same on all devices.
        ways = kernels.directions(prng.site_key(terms.key, "directions"), self.projections, codes.shape[-1])
        distance = kernels.sliced_wasserstein(codes, drawn, ways)
        return terms.distortion + self.schedule(ctx.step) * ctx.hyper["lam"] * distance, {"sliced_distance": distance}
