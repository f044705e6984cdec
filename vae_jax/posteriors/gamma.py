"""The gamma posterior, over positive codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from vae_jax.distributions import gamma
from vae_jax.distributions.special import positive
from vae_jax.posteriors.base import Posterior
from vae_jax.spaces import Positive, Space


@dataclass(frozen=True)
class Gamma(Posterior):
    """Gamma: positive codes, reparameterized implicitly (arXiv:1805.08498)."""

    space: ClassVar[type[Space]] = Positive
    factorized: ClassVar[bool] = True

    def outputs(self, latent_dim: int) -> int:
        return 2 * latent_dim

    def build(self, params, out, step, train) -> gamma.Gamma:
        del params, step, train
        concentration, rate = jnp.split(out, 2, axis=-1)
        # Below a concentration of .01 most of the mass is under the smallest float; a rate near 0 would send the mean,
        # the quotient of the two, to infinity. Outputs of 0 start close to the exponential distribution.
        return gamma.Gamma(positive(concentration, 1e-2), positive(rate, 1e-3))
