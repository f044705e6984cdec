"""DIP-VAE: the covariance of codes over the data is drawn to the identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp

from vae_jax import collectives
from vae_jax.model import Context, Metrics
from vae_jax.objectives.base import Objective, Terms
from vae_jax.options.ranges import NotNegative
from vae_jax.spaces import Real, Space


def covariance(z: jax.Array) -> jax.Array:
    """Returns 1/B sum_i (z_i - mean)(z_i - mean)^T, [D, D], for codes [B, D]."""
    centered = z - jnp.mean(z, 0, keepdims=True)
    # Full precision: by default an accelerator multiplies in TF32 or bfloat16, whose 8 to 11 bits are too few for
    # entries that are to be driven to 0.
    return jnp.matmul(centered.T, centered, precision="highest") / len(z)


@dataclass(frozen=True)
class DipI(Objective):
    """DIP-VAE-I: the covariance of the means, Cov[mu(x)], near the identity (arXiv:1711.00848).

    Example:
      >>> from vae_jax.distributions import DiagGaussian
      >>> q = DiagGaussian(jnp.array([[-2.0], [2.0]]), jnp.zeros((2, 1)))  # Cov[mu] = 4
      >>> terms = Terms(None, None, q, None, distortion=jnp.full(2, 10.0), rate=jnp.full(2, 3.0), kl_per_dim=None)
      >>> objective = DipI(lambda_d=1.0)
      >>> objective.loss(terms, Context(0, jnp.arange(2), objective.hyper()))[0].tolist()  # + (4 - 1)^2
      [22.0, 22.0]
    """

    lambda_od: Annotated[float, NotNegative()] = 10.0
    """Weight of the squares off the diagonal."""
    lambda_d: Annotated[float, NotNegative()] = 100.0
    """Weight of (Cov_jj - 1)^2 on the diagonal."""

    couples: ClassVar[bool] = True
    separable: ClassVar[bool] = True
    spaces: ClassVar[tuple[type[Space], ...]] = (Real,)

    def hyper(self) -> dict[str, float]:
        return {"lambda_od": self.lambda_od, "lambda_d": self.lambda_d}

    def moments(self, terms: Terms, ctx: Context) -> jax.Array:
        """Returns the covariance [D, D] that is regularized, over the global batch."""
        # Codes are gathered before the covariance is taken: the mean of the shards' own covariances leaves out the
        # spread of their means. Separable posteriors have mode = mean, [B, D].
        return covariance(collectives.all_gather(terms.posterior.mode(), ctx.axis_name))

    def loss(self, terms: Terms, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (distortion + s(step) (rate + penalty), metrics): [B] in nats (arXiv:1711.00848, eq. 6 and 7).

        penalty = lambda_od sum_{i != j} Cov_ij^2 + lambda_d sum_j (Cov_jj - 1)^2.
        """
        cov = self.moments(terms, ctx)
        variances = jnp.diagonal(cov)
        # Both triangles: each pair of dimensions counts twice, as in the paper's sum over i != j.
        off = jnp.sum(jnp.square(cov - jnp.diag(variances)))
        on = jnp.sum(jnp.square(variances - 1.0))
        penalty = ctx.hyper["lambda_od"] * off + ctx.hyper["lambda_d"] * on
        metrics = {"covariance_off_diagonal": off, "covariance_diagonal": on}
        # The penalty is a scalar of the whole batch, so every example has the same one.
        return terms.distortion + self.schedule(ctx.step) * (terms.rate + penalty), metrics


@dataclass(frozen=True)
class DipII(DipI):
    """DIP-VAE-II: the covariance of the codes, Cov[mu(x)] + E[sigma^2(x)], near the identity (arXiv:1711.00848).

    Example:
      >>> from vae_jax.distributions import DiagGaussian
      >>> q = DiagGaussian(jnp.array([[-2.0], [2.0]]), jnp.zeros((2, 1)))  # Cov[mu] + E[sigma^2] = 4 + 1
      >>> terms = Terms(None, None, q, None, distortion=jnp.full(2, 10.0), rate=jnp.full(2, 3.0), kl_per_dim=None)
      >>> objective = DipII(lambda_d=1.0)
      >>> objective.loss(terms, Context(0, jnp.arange(2), objective.hyper()))[0].tolist()  # + (5 - 1)^2
      [29.0, 29.0]
    """

    lambda_d: Annotated[float, NotNegative()] = 10.0
    """Weight of (Cov_jj - 1)^2 on the diagonal."""

    def moments(self, terms: Terms, ctx: Context) -> jax.Array:
        """Returns Cov_q[z] = Cov[E(z|x)] + E[Cov(z|x)], [D, D], over the global batch."""
        # E[Cov(z|x)] is diagonal for these posteriors and linear in the examples, so a mean over devices is exact here.
        within = collectives.pmean(jnp.mean(terms.posterior.variance(), 0), ctx.axis_name)
        return super().moments(terms, ctx) + jnp.diag(within)
