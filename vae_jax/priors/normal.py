"""The isotropic Gaussian prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.distributions import gaussian


@dataclass(frozen=True)
class Normal:
    """N(mean, std^2 I)."""

    mean: float = 0.0
    """Mean of every latent dimension."""
    std: float = 1.0
    """Standard deviation of every latent dimension."""

    def init(self, key: jax.Array, latent_dim: int) -> dict[str, Any]:
        """Returns the trained parameters: none."""
        del key, latent_dim
        return {}

    def distribution(self, params: Any, shape: tuple[int, ...]) -> gaussian.DiagGaussian:
        """Returns the prior broadcast to `shape`, whose last axis is the latent one."""
        del params
        return gaussian.DiagGaussian(
            jnp.full(shape, self.mean, jnp.float32), jnp.full(shape, 2.0 * math.log(self.std), jnp.float32)
        )

    def log_prob(self, params: Any, z: jax.Array) -> jax.Array:
        """Returns log p(z) in nats, z: [..., D] -> [...]."""
        return self.distribution(params, z.shape).log_prob(z)

    def kl(self, params: Any, q: gaussian.DiagGaussian) -> jax.Array:
        """Returns KL(q || p) a dimension in nats, [B, D], in closed form."""
        return gaussian.kl(q, self.distribution(params, q.mean.shape))

    def sample(self, params: Any, key: jax.Array, n: int, latent_dim: int, temperature: float = 1.0) -> jax.Array:
        """Returns z ~ N(mean, (temperature * std)^2 I), [n, latent_dim]."""
        del params
        return self.mean + temperature * self.std * jax.random.normal(key, (n, latent_dim))
