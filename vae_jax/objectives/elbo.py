"""The evidence lower bound and its beta-weighted form.

An objective is a frozen dataclass (its options) with `hyper()` (scalars that may be swept, traced) and `loss`, a pure
function of the terms of one batch. Terms are never weighted; the weights exist only inside `loss`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax

from vae_jax import schedules
from vae_jax.model import Context, Metrics


class Terms(NamedTuple):
    """One batch as the single-latent family sees it. Nats, per example, unweighted.

    Attributes:
      x: data [B, H, W, C].
      z: one posterior sample [B, D].
      posterior: q(z|x).
      likelihood: p(x|z).
      distortion: -log p(x|z) [B].
      rate: KL(q(z|x) || p(z)) [B], closed form where there is one, else its one-sample estimate.
      kl_per_dim: the rate by dimension [B, D].
    """

    x: jax.Array
    z: jax.Array
    posterior: Any
    likelihood: Any
    distortion: jax.Array
    rate: jax.Array
    kl_per_dim: jax.Array


@dataclass(frozen=True)
class Elbo:
    """The evidence lower bound: -ELBO = distortion + rate (arXiv:1312.6114)."""

    schedule: schedules.Constant | schedules.Linear | schedules.Cyclical = field(default_factory=schedules.Constant)
    """Annealing of the KL weight: constant, linear (warm-up) or cyclical."""

    def hyper(self) -> dict[str, float]:
        """Returns the scalars that are traced rather than compiled in."""
        return {"beta": 1.0}

    def loss(self, terms: Terms, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (distortion + beta * s(step) * rate, metrics): [B] in nats (arXiv:1312.6114, eq. 3)."""
        beta = ctx.hyper["beta"] * self.schedule(ctx.step)
        return terms.distortion + beta * terms.rate, {"beta": beta}


@dataclass(frozen=True)
class Beta(Elbo):
    """beta-VAE: distortion + beta * rate (Higgins et al. 2017; rate-distortion view: arXiv:1711.00464)."""

    beta: float = 4.0
    """Weight of the rate (KL). 1 is the ELBO; above 1 trades reconstruction for disentanglement."""

    def hyper(self) -> dict[str, float]:
        return {"beta": self.beta}
