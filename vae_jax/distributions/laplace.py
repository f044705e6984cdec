"""The Laplace distribution, and its divergences from Laplace and Gaussian densities."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import erf

from vae_jax.distributions.gaussian import LOG_2PI, DiagGaussian


class Laplace(NamedTuple):
    """Independent Laplace variables, p(z) = exp(-|z - mean| / scale) / (2 scale). `mean`, `scale`: [B, D].

    Example:
      >>> q = Laplace(jnp.zeros((1, 1)), jnp.ones((1, 1)))
      >>> round(float(q.log_prob(jnp.zeros((1, 1)))[0]), 4), float(q.variance()[0, 0])  # -ln 2
      (-0.6931, 2.0)
    """

    mean: jax.Array
    scale: jax.Array

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns the reparameterized draw mean + scale * eps, [B, D], from one key per example."""
        return self.mean + self.scale * jax.vmap(lambda k: jax.random.laplace(k, self.mean.shape[1:]))(keys)

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Returns -sum_j |z_j - mean_j| / scale_j + ln(2 scale_j) in nats [B]."""
        return -jnp.sum(jnp.abs(z - self.mean) / self.scale + jnp.log(2.0 * self.scale), -1)

    def sample_and_log_prob(self, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns z [B, D] and log q(z) [B]."""
        z = self.sample(keys)
        return z, self.log_prob(z)

    def mode(self) -> jax.Array:
        """Returns the mean, which is the mode."""
        return self.mean

    def variance(self) -> jax.Array:
        """Returns 2 scale^2 [B, D]."""
        return 2.0 * jnp.square(self.scale)


def laplace_kl(q: Laplace, p: Laplace) -> jax.Array:
    """Returns KL(q || p) of each dimension in nats, [B, D].

    KL = r (e^-x - 1 + x) + (r - 1 - ln r), r = b_q / b_p, x = |mean_q - mean_p| / b_q: two terms of one sign.

    Example:
      >>> q, p = (Laplace(jnp.full((1, 1), mean), jnp.ones((1, 1))) for mean in (1.0, 0.0))
      >>> round(float(laplace_kl(q, p)[0, 0]), 4)  # 1 / e
      0.3679
    """
    log_ratio = jnp.log(q.scale) - jnp.log(p.scale)
    x = jnp.abs(q.mean - p.mean) / q.scale
    return jnp.exp(log_ratio) * (jnp.expm1(-x) + x) + jnp.expm1(log_ratio) - log_ratio


def laplace_normal_kl(q: Laplace, p: DiagGaussian) -> jax.Array:
    """Returns KL(Laplace || N) of each dimension in nats, [B, D]: E_q[(z - m)^2] = 2 b^2 + (mean - m)^2.

    Example:
      >>> q = Laplace(jnp.zeros((1, 1)), jnp.ones((1, 1)))
      >>> p = DiagGaussian(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
      >>> round(float(laplace_normal_kl(q, p)[0, 0]), 4)  # ln(2 pi) / 2 - ln 2
      0.2258
    """
    second = 2.0 * jnp.square(q.scale) + jnp.square(q.mean - p.mean)
    cross = 0.5 * (LOG_2PI + p.log_var + second * jnp.exp(-p.log_var))
    return cross - 1.0 - jnp.log(2.0 * q.scale)


def normal_laplace_kl(q: DiagGaussian, p: Laplace) -> jax.Array:
    """Returns KL(N || Laplace) of each dimension in nats, [B, D].

    E_q|z - m| = sd sqrt(2/pi) exp(-x^2) + sd sqrt(2) x erf(x), x = (mean - m) / (sd sqrt(2)), a folded normal.

    Example:
      >>> q = DiagGaussian(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
      >>> p = Laplace(jnp.zeros((1, 1)), jnp.ones((1, 1)))
      >>> round(float(normal_laplace_kl(q, p)[0, 0]), 4)  # sqrt(2 / pi) + ln 2 - (1 + ln(2 pi)) / 2
      0.0721
    """
    std = jnp.exp(0.5 * q.log_var)
    # The floor keeps 0 / 0 out where the variance underflows; there the absolute error is below any float.
    x = (q.mean - p.mean) / jnp.maximum(math.sqrt(2.0) * std, 1e-15)
    near = jnp.minimum(jnp.abs(x), 10.0)  # exp(-100) is 0 already; its argument must not overflow
    absolute = std * math.sqrt(2.0 / math.pi) * jnp.exp(-jnp.square(near)) + (q.mean - p.mean) * erf(x)
    return absolute / p.scale + jnp.log(2.0 * p.scale) - 0.5 * (1.0 + LOG_2PI + q.log_var)
