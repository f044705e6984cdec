"""Wasserstein autoencoders beside the MMD: an adversarial penalty, and a sliced distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax

from vae_jax import prng
from vae_jax.distributions import kernels
from vae_jax.model import Context, Metrics
from vae_jax.objectives import critic as critics
from vae_jax.objectives.base import Objective, Terms
from vae_jax.objectives.mmd import codes_and_prior
from vae_jax.options.ranges import EACH_AT_LEAST_ONE, AtLeast, NotNegative
from vae_jax.spaces import Positive, Real, Space, Sphere, UnitInterval


@dataclass(frozen=True)
class WaeGAN(Objective):
    """Adversarial autoencoder (WAE-GAN): a critic tells codes from draws of the prior (arXiv:1511.05644)."""

    lam: Annotated[float, NotNegative()] = 10.0
    """lambda, weight of the encoder's adversarial loss -ln D(z)."""
    hidden: Annotated[tuple[int, ...], EACH_AT_LEAST_ONE] = (512,) * 4
    """Widths of the critic's hidden layers (leaky ReLU). It trains with `critic_optimizer`."""

    couples: ClassVar[bool] = True
    path: ClassVar[bool] = True
    noisy: ClassVar[bool] = True
    critic: ClassVar[bool] = True
    rateless: ClassVar[bool] = True
    spaces: ClassVar[tuple[type[Space], ...]] = (Real, Positive, UnitInterval, Sphere)

    def hyper(self) -> dict[str, float]:
        return {"lam": self.lam}

    def init(self, key: jax.Array, code_dim: int) -> dict[str, Any]:
        return critics.init(key, code_dim, self.hidden)

    def step(self, terms: Terms, ctx: Context, state: Any, critic: Any) -> tuple[jax.Array, Metrics, Any]:
        """Returns (distortion - s(step) lam ln D(z), metrics, state): [B] in nats (arXiv:1711.01558, alg. 1).

        The critic D(z) tells draws of the prior (1) from codes (0); its own loss adds nothing to the value, only its
        gradient. The encoder's loss is the one that does not saturate. A trained prior learns nothing here.
        """
        # 1. Encoder: -ln D(z) = softplus(-logit), under a stopped critic.
        logits = critics.logit(jax.lax.stop_gradient(critic), terms.z)
        # 2. Critic: codes of the global batch against as many draws of the prior, both stopped in `cross_entropy`.
        codes, drawn = codes_and_prior(terms, ctx)
        own, metrics = critics.cross_entropy(critic, drawn, codes)
        # 3. ln(1 - D) would have no gradient where the critic is sure; -ln D has its largest there.
        cost = self.schedule(ctx.step) * ctx.hyper["lam"] * jax.nn.softplus(-logits)
        return terms.distortion + cost + own, metrics, state


@dataclass(frozen=True)
class SlicedWAE(Objective):
    """Sliced Wasserstein autoencoder: distances of sorted projections of codes and prior draws (arXiv:1804.01947)."""

    lam: Annotated[float, NotNegative()] = 10.0
    """lambda, weight of the squared distance."""
    projections: Annotated[int, AtLeast(1)] = 50
    """Random directions a step, L."""

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
