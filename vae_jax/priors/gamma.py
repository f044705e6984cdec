"""The gamma prior over positive codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from vae_jax.distributions import gamma
from vae_jax.distributions.special import TINY
from vae_jax.options import ranges
from vae_jax.priors.base import Links, Prior
from vae_jax.spaces import Positive, Space


@dataclass(frozen=True)
class Gamma(Prior):
    """Independent gamma codes; the default, Gamma(1, 1), is the exponential distribution (arXiv:1805.08498)."""

    concentration: Annotated[float, ranges.Positive()] = 1.0
    """Shape parameter of every latent dimension."""
    rate: Annotated[float, ranges.Positive()] = 1.0
    """Rate of every latent dimension; the mean is concentration / rate."""

    space: ClassVar[type[Space]] = Positive
    factorized: ClassVar[bool] = True

    def distribution(self, params: Any, state: Any, links: Links) -> gamma.Gamma:
        del params, state
        shape = (1, links.code_dim)
        return gamma.Gamma(jnp.full(shape, self.concentration, jnp.float32), jnp.full(shape, self.rate, jnp.float32))

    def sample(self, params, state, key, n: int, links: Links, temperature: float = 1.0) -> jax.Array:
        """Returns z of the prior's mean and `temperature` times its standard deviation, [n, D]."""
        del params, state
        # Shape and rate over t^2: the mean a / r is unchanged and the deviation sqrt(a) / r is scaled by t. A
        # temperature of 0 is read as .001, or both would be infinite.
        sharper = 1.0 / jnp.square(jnp.maximum(temperature, 1e-3))
        concentration = jnp.full((n, links.code_dim), self.concentration) * sharper
        # Never 0, where ln z of the density has no value.
        return jnp.maximum(jax.random.gamma(key, concentration) / (self.rate * sharper), TINY)
