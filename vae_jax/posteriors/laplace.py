"""The Laplace posterior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from vae_jax.distributions import laplace
from vae_jax.distributions.special import positive
from vae_jax.posteriors.base import Posterior


@dataclass(frozen=True)
class Laplace(Posterior):
    """Laplace: the encoder gives mean and scale of every dimension (arXiv:1312.6114, sec. 2.4)."""

    factorized: ClassVar[bool] = True

    def outputs(self, latent_dim: int) -> int:
        return 2 * latent_dim

    def build(self, params, out, step, train) -> laplace.Laplace:
        del params, step, train
        mean, raw = jnp.split(out, 2, axis=-1)
        # The floor keeps the log density and the KL finite. Outputs of 0 give a scale near 1.
        return laplace.Laplace(mean, positive(raw, 1e-4))
