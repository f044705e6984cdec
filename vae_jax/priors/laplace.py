"""The Laplace prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from vae_jax.distributions import laplace
from vae_jax.options.ranges import Positive
from vae_jax.priors.base import Links, Prior


@dataclass(frozen=True)
class Laplace(Prior):
    """Independent Laplace codes, a prior of sparse codes (Olshausen & Field 1996)."""

    mean: float = 0.0
    """Mean of every latent dimension."""
    scale: Annotated[float, Positive()] = 1.0
    """Scale b of every latent dimension; the standard deviation is sqrt(2) b."""

    factorized: ClassVar[bool] = True

    def unit(self) -> tuple[float, float]:
        return self.mean, math.sqrt(2.0) * self.scale

    def distribution(self, params: Any, state: Any, links: Links) -> laplace.Laplace:
        del params, state
        shape = (1, links.code_dim)
        return laplace.Laplace(jnp.full(shape, self.mean, jnp.float32), jnp.full(shape, self.scale, jnp.float32))

    def sample(self, params, state, key, n: int, links: Links, temperature: float = 1.0) -> jax.Array:
        """Returns z ~ Laplace(mean, temperature * scale), [n, D]."""
        del params, state
        # A location-scale family: the temperature acts on the scale, and with it on the standard deviation.
        return self.mean + temperature * self.scale * jax.random.laplace(key, (n, links.code_dim))
