"""The evidence lower bound and its beta-weighted form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import jax

from vae_jax.model import Context, Metrics
from vae_jax.objectives.base import Objective, Terms
from vae_jax.options.ranges import NotNegative


@dataclass(frozen=True)
class Elbo(Objective):
    """The evidence lower bound: -ELBO = distortion + rate (arXiv:1312.6114).

    Example:
      >>> import jax.numpy as jnp
      >>> terms = Terms(*[None] * 4, distortion=jnp.array([10.0]), rate=jnp.array([3.0]), kl_per_dim=None)
      >>> ctx = Context(0, jnp.arange(1), Elbo().hyper())
      >>> Elbo().loss(terms, ctx)[0].tolist()
      [13.0]
    """

    def hyper(self) -> dict[str, float]:
        # Traced, so that the runs of a sweep over beta share one program; the ELBO itself is the value 1.
        return {"beta": 1.0}

    def loss(self, terms: Terms, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (distortion + beta * s(step) * rate, metrics): [B] in nats (arXiv:1312.6114, eq. 3)."""
        beta = ctx.hyper["beta"] * self.schedule(ctx.step)
        # The log keeps both terms unweighted, so that runs of different beta can be compared.
        return terms.distortion + beta * terms.rate, {"beta": beta}


@dataclass(frozen=True)
class Beta(Elbo):
    """beta-VAE: distortion + beta * rate (Higgins et al. 2017; rate-distortion view: arXiv:1711.00464).

    Example:
      >>> import jax.numpy as jnp
      >>> terms = Terms(*[None] * 4, distortion=jnp.array([10.0]), rate=jnp.array([3.0]), kl_per_dim=None)
      >>> ctx = Context(0, jnp.arange(1), Beta(beta=4.0).hyper())
      >>> Beta(beta=4.0).loss(terms, ctx)[0].tolist()  # 10 + 4 * 3
      [22.0]
    """

    beta: Annotated[float, NotNegative()] = 4.0
    """Weight of the rate (KL). 1 is the ELBO; above 1 trades reconstruction for disentanglement."""

    def hyper(self) -> dict[str, float]:
        return {"beta": self.beta}
