"""The diagonal Gaussian: posterior, prior and noise model of most VAEs."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vae_jax import prng
from vae_jax.distributions.special import log_beyond

LOG_2PI = math.log(2.0 * math.pi)
# Log variances of trained posteriors and priors are taken as they are between these two, standard deviations from 3e-7
# to 2e4. Past them they grow as a logarithm: exp(89) would be infinite in float32, and the rate with it.
LOG_VAR_RANGE = (-30.0, 20.0)


class DiagGaussian(NamedTuple):
    """N(mean, diag(exp(log_var))) over the last axis. `mean` and `log_var`: [..., D], float32.

    Example:
      >>> q = DiagGaussian(jnp.zeros((1, 2)), jnp.zeros((1, 2)))
      >>> round(float(q.log_prob(jnp.zeros((1, 2)))[0]), 4)  # -ln(2 pi)
      -1.8379
      >>> q.sample(jax.random.split(jax.random.key(0), 1)).shape
      (1, 2)
    """

    mean: jax.Array
    log_var: jax.Array

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns the reparameterized draw z = mean + exp(log_var / 2) * eps, [B, D], from one key per example."""
        noise = prng.normal(keys, self.mean.shape[1:])
        return self.mean + jnp.exp(0.5 * self.log_var) * noise

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Returns log N(z; mean, var) in nats, summed over the last axis: [...]."""
        squared = jnp.square(z - self.mean) * jnp.exp(-self.log_var)
        return -0.5 * jnp.sum(squared + self.log_var + LOG_2PI, axis=-1)

    def sample_and_log_prob(self, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns z [B, D] and log N(z; mean, var) [B]."""
        z = self.sample(keys)
        return z, self.log_prob(z)

    def mode(self) -> jax.Array:
        """Returns the mean, which is the mode."""
        return self.mean

    def variance(self) -> jax.Array:
        """Returns exp(log_var)."""
        return jnp.exp(self.log_var)


def of_outputs(mean: jax.Array, raw: jax.Array) -> DiagGaussian:
    """Returns N(mean, diag(exp(raw))) of network outputs or trained parameters, whose log variances may stray.

    Inside `LOG_VAR_RANGE` raw is the log variance bit for bit; outside it is led back (`special.log_beyond`).

    Example:
      >>> float(of_outputs(jnp.array(0.0), jnp.array(3.0)).log_var)
      3.0
      >>> round(float(of_outputs(jnp.array(0.0), jnp.array(200.0)).log_var), 4)  # 20 + ln(1 + 180)
      25.1985
    """
    return DiagGaussian(mean, log_beyond(raw, *LOG_VAR_RANGE))


def kl(q: DiagGaussian, p: DiagGaussian) -> jax.Array:
    """Returns KL(q || p) of each dimension in nats, [..., D]; sum over the last axis for the rate.

    KL = 1/2 [ (mu_q - mu_p)^2 / s_p^2 + (r - 1 - ln r) ],  r = s_q^2 / s_p^2.
    `expm1` keeps the bracket right to 1e-7 |ln r| when r is close to 1 (arXiv:1312.6114, app. B).

    Example:
      >>> q = DiagGaussian(jnp.array([1.0, 0.0]), jnp.zeros(2))
      >>> p = DiagGaussian(jnp.zeros(2), jnp.zeros(2))
      >>> kl(q, p).tolist()  # of N(1, 1) from N(0, 1), and of N(0, 1) from itself
      [0.5, 0.0]
    """
    log_ratio = q.log_var - p.log_var
    return 0.5 * (jnp.square(q.mean - p.mean) * jnp.exp(-p.log_var) + jnp.expm1(log_ratio) - log_ratio)
