"""Objectives that hold the aggregate posterior at the prior by the maximum mean discrepancy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import jax
import jax.numpy as jnp

from vae_jax import collectives, prng
from vae_jax.distributions import kernels
from vae_jax.errors import InputError
from vae_jax.model import Context, Metrics
from vae_jax.objectives.base import Objective, Terms
from vae_jax.options import ranges
from vae_jax.options.ranges import Each, NotNegative
from vae_jax.spaces import Positive, Real, Space, Sphere, UnitInterval
from vae_jax.spec import DataSpec


def codes_and_prior(terms: Terms, ctx: Context) -> tuple[jax.Array, jax.Array]:
    """Returns (codes of the global batch, as many draws of the prior), each [B, D] and the same on every device."""
    assert terms.sample_prior is not None
    # All pairs of the global batch: the mean of the shards' MMDs would drop the pairs across devices. The key of the
    # draws is that of the step, hence common to the devices, and so are the draws.
    z = collectives.all_gather(terms.z, ctx.axis_name)
    return z, terms.sample_prior(prng.site_key(terms.key, "prior"), len(z))


@dataclass(frozen=True)
class Discrepancy(Objective):
    """Base of the objectives with an MMD between q(z) = E_x q(z|x) and p(z)."""

    kernel: Literal["imq", "rbf"] = "imq"
    """Kernel: inverse multiquadratic, C / (C + d^2), or Gaussian, exp(-d^2 / C)."""
    bandwidths: Annotated[tuple[float, ...], Each(ranges.Positive(), "one or more positive numbers", some=True)] = (
        0.1,
        0.2,
        0.5,
        1.0,
        2.0,
        5.0,
        10.0,
    )
    """The s of C = 2 D s; the kernel is the sum over them."""

    couples: ClassVar[bool] = True
    path: ClassVar[bool] = True
    noisy: ClassVar[bool] = True
    spaces: ClassVar[tuple[type[Space], ...]] = (Real, Positive, UnitInterval, Sphere)

    def discrepancy(self, terms: Terms, ctx: Context) -> jax.Array:
        """Returns the unbiased estimate of MMD^2(q(z), p(z)) from the global batch, a scalar."""
        z, drawn = codes_and_prior(terms, ctx)
        # Bandwidths scale with D: squared distances between codes grow with it.
        return kernels.mmd(z, drawn, kernels.kernel(self.kernel, z.shape[-1], self.bandwidths))


@dataclass(frozen=True)
class InfoVAE(Discrepancy):
    """InfoVAE (MMD-VAE): (1 - alpha) * rate + (alpha + lambda - 1) * MMD(q(z), p(z)) (arXiv:1706.02262).

    Example:
      >>> z = jnp.array([[0.0], [2.0]])
      >>> terms = Terms(None, z, None, None, distortion=jnp.full(2, 10.0), rate=jnp.full(2, 3.0), kl_per_dim=None)
      >>> terms = terms._replace(key=jax.random.key(0), sample_prior=lambda key, n: z)  # MMD^2 = -0.8
      >>> objective = InfoVAE(alpha=0.5, lam=1.0, bandwidths=(0.5,))
      >>> loss, _ = objective.loss(terms, Context(0, jnp.arange(2), objective.hyper()))
      >>> round(float(loss[0]), 4)  # 10 + 0.5 * 3 - 0.5 * 0.8
      11.1
    """

    alpha: Annotated[float, NotNegative()] = 1.0
    """Weight of the mutual information; the rate weighs 1 - alpha, so that 1 leaves only the MMD."""
    lam: Annotated[float, NotNegative()] = 10.0
    """lambda; the MMD, here that of a sum of kernels, weighs alpha + lambda - 1."""

    def check(self, spec: DataSpec) -> None:
        del spec
        if self.alpha > 1.0:
            raise InputError(
                f"model.objective.alpha: {self.alpha} gives the rate the negative weight 1 - alpha; choose at most 1"
            )
        if self.alpha + self.lam < 1.0:
            raise InputError(
                f"model.objective.lam: {self.lam} gives the MMD the negative weight alpha + lam - 1; choose at least "
                f"{1.0 - self.alpha}"
            )

    def hyper(self) -> dict[str, float]:
        # Not alpha: a sweep could leave the range that `check` guards, where the rate grows without bound.
        return {"lam": self.lam}

    def loss(self, terms: Terms, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (distortion + s(step) ((1 - alpha) rate + (alpha + lam - 1) MMD^2), metrics): [B] in nats."""
        # A scalar of the whole batch. The estimate is unbiased, and may therefore be negative.
        mmd = self.discrepancy(terms, ctx)
        cost = (1.0 - self.alpha) * terms.rate + (self.alpha + ctx.hyper["lam"] - 1.0) * mmd
        return terms.distortion + self.schedule(ctx.step) * cost, {"mmd": mmd}


@dataclass(frozen=True)
class WaeMMD(Discrepancy):
    """Wasserstein autoencoder: distortion + lambda * MMD(q(z), p(z)), no rate (arXiv:1711.01558).

    Example:
      >>> z = jnp.array([[0.0], [2.0]])
      >>> terms = Terms(None, z, None, None, distortion=jnp.full(2, 10.0), rate=jnp.full(2, 3.0), kl_per_dim=None)
      >>> terms = terms._replace(key=jax.random.key(0), sample_prior=lambda key, n: z)  # MMD^2 = -0.8
      >>> objective = WaeMMD(lam=1.0, bandwidths=(0.5,))
      >>> loss, _ = objective.loss(terms, Context(0, jnp.arange(2), objective.hyper()))
      >>> round(float(loss[0]), 4)  # 10 - 0.8
      9.2
    """

    lam: Annotated[float, NotNegative()] = 10.0
    """lambda, weight of the MMD."""

    rateless: ClassVar[bool] = True

    def hyper(self) -> dict[str, float]:
        return {"lam": self.lam}

    def loss(self, terms: Terms, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (distortion + s(step) lam MMD^2, metrics): [B] in nats (arXiv:1711.01558, alg. 2)."""
        # No rate: only the aggregate q(z) is held at p(z), and single posteriors may be as narrow as they like.
        mmd = self.discrepancy(terms, ctx)
        return jnp.add(terms.distortion, self.schedule(ctx.step) * ctx.hyper["lam"] * mmd), {"mmd": mmd}
