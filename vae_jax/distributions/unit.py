"""Densities over (0, 1): Beta and Kumaraswamy."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.distributions.special import (
    BELOW_ONE,
    EULER,
    HALF_LOG_2PI,
    TINY,
    digamma_remainder,
    log1mexp,
    log_beta,
    stirling_remainder,
)


class Beta(NamedTuple):
    """Independent beta variables, p(z) = z^(a-1) (1-z)^(b-1) / B(a, b). `a`, `b`: [B, D].

    Example:
      >>> q = Beta(jnp.full((1, 1), 2.0), jnp.ones((1, 1)))  # p(z) = 2 z
      >>> round(float(q.log_prob(jnp.array([[0.25]]))[0]), 4)  # ln 1/2
      -0.6931
    """

    a: jax.Array
    b: jax.Array

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns z = x / (x + y), x ~ Gamma(a), y ~ Gamma(b), [B, D], from one key per example.

        Implicitly reparameterized through both (arXiv:1805.08498), in logarithms, so that small a and b do not give
        0 / 0; never 0 or 1.
        """
        both = jnp.stack([self.a, self.b], 1)
        log_x, log_y = jnp.moveaxis(jax.vmap(jax.random.loggamma)(keys, both), 1, 0)
        return jnp.clip(jax.nn.sigmoid(log_x - log_y), TINY, BELOW_ONE)

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Returns log q(z) in nats [B]."""
        z = jnp.clip(z, TINY, BELOW_ONE)
        kernel = (self.a - 1.0) * jnp.log(z) + (self.b - 1.0) * jnp.log1p(-z)
        return jnp.sum(kernel - log_beta(self.a, self.b), -1)

    def sample_and_log_prob(self, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns z [B, D] and log q(z) [B]."""
        z = self.sample(keys)
        return z, self.log_prob(z)

    def mode(self) -> jax.Array:
        """Returns the mean a / (a + b) [B, D]; there is no mode inside for a or b below 1."""
        return self.a / (self.a + self.b)

    def variance(self) -> jax.Array:
        """Returns a b / ((a + b)^2 (a + b + 1)) [B, D]."""
        total = self.a + self.b
        return (self.a / total) * (self.b / total) / (total + 1.0)


class Kumaraswamy(NamedTuple):
    """Independent Kumaraswamy variables, P(z < t) = 1 - (1 - t^a)^b. `a`, `b`: [B, D].

    Example:
      >>> q = Kumaraswamy(jnp.full((1, 1), 2.0), jnp.ones((1, 1)))  # p(z) = 2 z
      >>> round(float(q.log_prob(jnp.array([[0.25]]))[0]), 4)  # ln 1/2
      -0.6931
    """

    a: jax.Array
    b: jax.Array

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns z = (1 - v^(1/b))^(1/a), v ~ U(0, 1), [B, D], from one key per example: the inverse CDF."""
        waits = jax.vmap(lambda k: jax.random.exponential(k, self.a.shape[1:]))(keys)  # -ln v
        log_z = log1mexp(jnp.maximum(waits, 1e-8) / self.b) / self.a
        return jnp.clip(jnp.exp(log_z), TINY, BELOW_ONE)

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Returns sum_j ln(a b) + (a - 1) ln z + (b - 1) ln(1 - z^a) in nats [B]."""
        log_z = jnp.log(jnp.clip(z, TINY, BELOW_ONE))
        kernel = (self.a - 1.0) * log_z + (self.b - 1.0) * log1mexp(-self.a * log_z)
        return jnp.sum(jnp.log(self.a) + jnp.log(self.b) + kernel, -1)

    def sample_and_log_prob(self, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns z [B, D] and log q(z) [B]."""
        z = self.sample(keys)
        return z, self.log_prob(z)

    def _moment(self, n: float) -> jax.Array:
        """Returns E[z^n] = b B(1 + n/a, b), [B, D]."""
        return jnp.exp(jnp.log(self.b) + log_beta(1.0 + n / self.a, self.b))

    def mode(self) -> jax.Array:
        """Returns the mean b B(1 + 1/a, b) [B, D]."""
        return self._moment(1.0)

    def variance(self) -> jax.Array:
        """Returns E[z^2] - E[z]^2 [B, D]; to float32 of E[z^2], so at least 1e-9."""
        return jnp.maximum(self._moment(2.0) - jnp.square(self._moment(1.0)), 1e-9)


def beta_kl(q: Beta, p: Beta) -> jax.Array:
    """Returns KL(q || p) of each dimension in nats, [B, D].

    KL = ln B(c, d) - ln B(a, b) + (a - c) psi(a) + (b - d) psi(b) - (a + b - c - d) psi(a + b) for q = Beta(a, b),
    p = Beta(c, d), rewritten as in `gamma_kl`.

    Example:
      >>> q, p = Beta(jnp.full((1, 1), 2.0), jnp.ones((1, 1))), Beta(jnp.ones((1, 1)), jnp.ones((1, 1)))
      >>> round(float(beta_kl(q, p)[0, 0]), 4)  # of p(z) = 2 z from the uniform: ln 2 - 1/2
      0.1931
    """
    a, b, c, d = q.a, q.b, p.a, p.b
    n, m = a + b, c + d
    slopes = (a - c) * digamma_remainder(a) + (b - d) * digamma_remainder(b) - (n - m) * digamma_remainder(n)
    logs = (c - 0.5) * jnp.log1p(b / a) + (d - 0.5) * jnp.log1p(a / b) + 0.5 * jnp.log(n)
    rest = stirling_remainder(a) + stirling_remainder(b) - stirling_remainder(n)
    return log_beta(c, d) - HALF_LOG_2PI - rest + slopes + logs


# s = exp(y - e^-y), y equally spaced: the trapezium rule for the integral of e^-s g(s) over (0, inf) converges
# exponentially, for g with any power or logarithm at either end (Takahasi & Mori 1974).
_Y = np.linspace(-3.0, 3.6, 67)
_S = np.exp(_Y - np.exp(-_Y))
_WEIGHTS = (_Y[1] - _Y[0]) * _S * (1.0 + np.exp(-_Y)) * np.exp(-_S)
NODES, WEIGHTS = _S.astype(np.float32), (_WEIGHTS / _WEIGHTS.sum()).astype(np.float32)


def mean_log_complement(q: Kumaraswamy) -> jax.Array:
    """Returns E_q[ln(1 - z)] of each dimension in nats, [B, D], by quadrature over -ln v ~ Exp(1).

    The textbook series -b sum_m B(m/a, b) / (m + a b) is the same number, but its terms fall as m^(-1-b) only.

    Example:
      >>> q = Kumaraswamy(jnp.ones((1, 1)), jnp.ones((1, 1)))  # uniform
      >>> round(float(mean_log_complement(q)[0, 0]), 4)
      -1.0
    """
    t = NODES.reshape(-1, 1, 1) / q.b[None]
    log_z = log1mexp(jnp.minimum(t, 20.0)) / q.a[None]
    # Where e^-t is small, z = (1 - e^-t)^(1/a) is 1 - e^-t / a, long before it underflows.
    terms = jnp.where(t < 20.0, log1mexp(jnp.maximum(-log_z, TINY)), -t - jnp.log(q.a)[None])
    return jnp.tensordot(WEIGHTS, terms, 1, precision="highest")


def kumaraswamy_kl(q: Kumaraswamy, p: Beta) -> jax.Array:
    """Returns KL(Kumaraswamy(a, b) || Beta(c, d)) of each dimension in nats, [B, D] (arXiv:1605.06197).

    KL = (a - c)/a (-gamma - psi(b) - 1/b) + ln(a b) + ln B(c, d) - (b - 1)/b - (d - 1) E_q[ln(1 - z)].

    Example:
      >>> q, p = Kumaraswamy(jnp.full((1, 1), 2.0), jnp.ones((1, 1))), Beta(jnp.ones((1, 1)), jnp.ones((1, 1)))
      >>> round(float(kumaraswamy_kl(q, p)[0, 0]), 4)  # of p(z) = 2 z from the uniform: ln 2 - 1/2
      0.1931
    """
    a, b, c, d = q.a, q.b, p.a, p.b
    from_zero = -EULER - jnp.log(b) - digamma_remainder(b) - 1.0 / b  # E[ln z^a]
    power = (1.0 - c / a) * from_zero + jnp.log(a) + jnp.log(b) + 1.0 / b - 1.0
    return power + log_beta(c, d) - (d - 1.0) * mean_log_complement(q)
