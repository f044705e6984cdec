"""The diagonal Gaussian posterior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from vae_jax.distributions.gaussian import DiagGaussian, of_outputs
from vae_jax.posteriors.base import Posterior


@dataclass(frozen=True)
class Diagonal(Posterior):
    """Diagonal Gaussian: the encoder gives mean and log variance of every dimension (arXiv:1312.6114)."""

    shared_variance: bool = False
    """One trained log variance a dimension for all images: the exact family of a linear decoder (arXiv:1911.02469)."""

    factorized: ClassVar[bool] = True
    separable: ClassVar[bool] = True

    def outputs(self, latent_dim: int) -> int:
        return latent_dim if self.shared_variance else 2 * latent_dim

    def init(self, key, latent_dim: int):
        del key
        # One row for all examples, at variance 1 to start with.
        return {"log_var": jnp.zeros((1, latent_dim))} if self.shared_variance else {}

    def build(self, params, out, step, train) -> DiagGaussian:
        del step, train
        if self.shared_variance:
            # All parameters get the batch axis: gathers over devices and maps over examples need it.
            return of_outputs(out, jnp.broadcast_to(params["log_var"], out.shape))
        # `of_outputs` bounds exp(log variance) in float32: one stray output would make the whole loss infinite.
        return of_outputs(*jnp.split(out, 2, axis=-1))
