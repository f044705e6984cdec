"""The stationary first-order autoregressive Gaussian: a prior from which no factorized posterior can hide."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vae_jax.distributions.gaussian import LOG_2PI, DiagGaussian


class AR1(NamedTuple):
    """z_1 ~ N(0, 1), z_t = alpha z_(t-1) + N(0, 1 - alpha^2): variance 1 in every dimension.

    `noise`: 1 - alpha^2, a scalar in (0, 1]; alpha = sqrt(1 - noise).

    Example:
      >>> p = AR1(jnp.array(1.0))  # alpha = 0: independent standard normals
      >>> round(float(p.log_prob(jnp.zeros((1, 2)))[0]), 4)
      -1.8379
    """

    noise: jax.Array

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Returns log p(z) in nats [B], for z [B, D]."""
        steps = z.shape[-1] - 1
        innovations = z[:, 1:] - jnp.sqrt(1.0 - self.noise) * z[:, :-1]
        squared = jnp.square(z[:, 0]) + jnp.sum(jnp.square(innovations), -1) / self.noise
        return -0.5 * (squared + steps * jnp.log(self.noise) + z.shape[-1] * LOG_2PI)

    def sample(self, key: jax.Array, n: int, dim: int) -> jax.Array:
        """Returns n draws [n, dim], one dimension after the other."""
        eps = jax.random.normal(key, (dim, n))

        def advance(z: jax.Array, e: jax.Array) -> tuple[jax.Array, jax.Array]:
            z = jnp.sqrt(1.0 - self.noise) * z + jnp.sqrt(self.noise) * e
            return z, z

        rest = jax.lax.scan(advance, eps[0], eps[1:])[1]
        return jnp.concatenate([eps[:1], rest]).T


def diagonal_kl(q: DiagGaussian, p: AR1) -> jax.Array:
    """Returns KL(q || p) of a diagonal q, [B, 1] in nats: it is no sum over dimensions.

    KL = 1/2 [ m' L m + sum_t (L_tt s_t^2 - 1 - ln s_t^2) + (D - 1) ln(1 - alpha^2) ], with the precision L of p:
    L_tt = (1 + alpha^2) / (1 - alpha^2), at both ends 1 / (1 - alpha^2)   (arXiv:1901.03416, sec. 2.2).

    Example:
      >>> q = DiagGaussian(jnp.zeros((1, 2)), jnp.zeros((1, 2)))
      >>> p = AR1(jnp.array(0.75))
      >>> round(float(diagonal_kl(q, p)[0, 0]), 4)  # (2 / 0.75 - 2 + ln 0.75) / 2
      0.1895
    """
    dim = q.mean.shape[-1]
    alpha_square = 1.0 - p.noise
    ends = (jnp.arange(dim) == 0) | (jnp.arange(dim) == dim - 1)
    # A chain of one dimension has both ends in one place, and the precision 1.
    precision = jnp.ones(1) if dim == 1 else jnp.where(ends, 1.0, 1.0 + alpha_square) / p.noise
    log_precision = jnp.log(precision)[None]
    innovations = q.mean[:, 1:] - jnp.sqrt(alpha_square) * q.mean[:, :-1]
    squared = jnp.square(q.mean[:, 0]) + jnp.sum(jnp.square(innovations), -1) / p.noise
    # s^2 L - 1 - ln(s^2 L) is 0 at the best variance 1 / L; what is then left is the committed rate.
    ratio = q.log_var + log_precision
    spread = jnp.sum(jnp.expm1(ratio) - ratio, -1)
    committed = jnp.sum(log_precision, -1) + (dim - 1) * jnp.log(p.noise)
    return 0.5 * (squared + spread + committed)[:, None]


def least_rate(noise: float, dim: int) -> float:
    """Returns the least KL(q || AR(1)) over diagonal Gaussians q, in nats, for noise = 1 - alpha^2.

    1/2 [ (D - 2) ln(1 + alpha^2) - ln(1 - alpha^2) ], reached at mean 0 and variances 1 / L_tt (arXiv:1901.03416,
    eq. 5); 0 for D = 1.

    Example:
      >>> round(least_rate(0.75, dim=2), 4)  # -ln(0.75) / 2
      0.1438
    """
    return 0.0 if dim == 1 else 0.5 * ((dim - 2) * math.log(2.0 - noise) - math.log(noise))


def noise_of_rate(rate: float, dim: int) -> float:
    """Returns 1 - alpha^2 in (0, 1] such that `least_rate` is `rate`, for `dim` of 2 or more, by bisection.

    Example:
      >>> round(noise_of_rate(least_rate(0.75, dim=8), dim=8), 6)
      0.75
    """
    low, high = math.exp(-2.0 * rate), 1.0  # (D - 2) ln(1 + alpha^2) >= 0: the root lies above exp(-2 rate)
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if least_rate(middle, dim) > rate else (low, middle)
    return math.sqrt(low * high)
