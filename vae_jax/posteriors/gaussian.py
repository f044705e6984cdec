"""The diagonal Gaussian posterior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from vae_jax.distributions.gaussian import DiagGaussian
from vae_jax.posteriors.base import Posterior


@dataclass(frozen=True)
class Diagonal(Posterior):
    """Diagonal Gaussian: the encoder gives mean and log variance of every dimension (arXiv:1312.6114)."""

    factorised: ClassVar[bool] = True

    def outputs(self, latent_dim: int) -> int:
        return 2 * latent_dim

    def build(self, params, out, step, train) -> DiagGaussian:
        del params, step, train
        return DiagGaussian(*jnp.split(out, 2, axis=-1))
