"""The isotropic Gaussian prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from vae_jax.distributions.gaussian import DiagGaussian
from vae_jax.options.needs import Property
from vae_jax.options.ranges import Positive
from vae_jax.priors.base import Links, Prior


@dataclass(frozen=True)
class Normal(Prior):
    """N(mean, std^2 I)."""

    mean: float = 0.0
    """Mean of every latent dimension."""
    std: Annotated[float, Positive()] = 1.0
    """Standard deviation of every latent dimension."""

    factorized: ClassVar[bool] = True

    def gives(self) -> frozenset[Property]:
        # Regularized autoencoders need it: their penalty |z|^2 / 2 is -ln N(z; 0, I).
        return super().gives() | {"standard normal"}

    def unit(self) -> tuple[float, float]:
        return self.mean, self.std

    def distribution(self, params: Any, state: Any, links: Links) -> DiagGaussian:
        del params, state
        # [1, D], broadcast over the batch.
        shape = (1, links.code_dim)
        return DiagGaussian(
            jnp.full(shape, self.mean, jnp.float32), jnp.full(shape, 2.0 * math.log(self.std), jnp.float32)
        )

    def sample(self, params, state, key, n: int, links: Links, temperature: float = 1.0) -> jax.Array:
        """Returns z ~ N(mean, (temperature * std)^2 I), [n, D]."""
        del params, state
        return self.mean + temperature * self.std * jax.random.normal(key, (n, links.code_dim))
