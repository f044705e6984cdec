"""The gamma distribution."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vae_jax.distributions.special import HALF_LOG_2PI, TINY, digamma_remainder, stirling_remainder


class Gamma(NamedTuple):
    """Independent gamma variables, p(z) = r^a z^(a-1) e^(-r z) / Gamma(a). All [B, D].

    Attributes:
      concentration: a > 0.
      rate: r > 0.

    Example:
      >>> q = Gamma(jnp.ones((1, 1)), jnp.ones((1, 1)))  # Exp(1)
      >>> round(float(q.log_prob(jnp.array([[2.0]]))[0]), 4)
      -2.0
    """

    concentration: jax.Array
    rate: jax.Array

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns z > 0, [B, D], from one key per example; implicitly reparameterized (arXiv:1805.08498).

        Drawn as a logarithm, and never below 1e-30: of concentrations near 0 most of the mass lies under every float.
        """
        log_y = jax.vmap(jax.random.loggamma)(keys, self.concentration)
        return jnp.exp(jnp.maximum(log_y - jnp.log(self.rate), jnp.log(TINY)))

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Returns log q(z) in nats [B].

        With t = r z / a and R the Stirling remainder: a (ln t - t + 1) - ln z + ln(a)/2 - ln(2 pi)/2 - R(a).
        """
        a, z = self.concentration, jnp.maximum(z, TINY)
        t = jnp.maximum(self.rate * z / a, 1e-37)
        return jnp.sum(
            a * (jnp.log(t) - (t - 1.0)) - jnp.log(z) + 0.5 * jnp.log(a) - HALF_LOG_2PI - stirling_remainder(a), -1
        )

    def sample_and_log_prob(self, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns z [B, D] and log q(z) [B]."""
        z = self.sample(keys)
        return z, self.log_prob(z)

    def mode(self) -> jax.Array:
        """Returns the mean a / r [B, D]; the mode is 0 for a <= 1."""
        return self.concentration / self.rate

    def variance(self) -> jax.Array:
        """Returns a / r^2 [B, D]."""
        return self.concentration / jnp.square(self.rate)


def gamma_kl(q: Gamma, p: Gamma) -> jax.Array:
    """Returns KL(q || p) of each dimension in nats, [B, D].

    KL = (a - c) psi(a) - ln Gamma(a) + ln Gamma(c) + c ln(r / s) + a (s - r) / r for q = Gamma(a, r), p = Gamma(c, s),
    rewritten with psi(x) = ln x + d(x) and Stirling's formula for ln Gamma, or large a would leave only rounding.

    Example:
      >>> q, p = Gamma(jnp.ones((1, 1)), jnp.ones((1, 1))), Gamma(jnp.ones((1, 1)), jnp.full((1, 1), 2.0))
      >>> round(float(gamma_kl(q, p)[0, 0]), 4)  # Exp(1) from Exp(2): 2 - 1 - ln 2
      0.3069
    """
    a, c = q.concentration, p.concentration
    excess = jnp.log(p.rate) + jnp.log(a) - jnp.log(q.rate) - jnp.log(c)  # ln of the ratio of means
    rest = stirling_remainder(c) - stirling_remainder(a) + 0.5 * (jnp.log(a) - jnp.log(c))
    # a s / r - c - c ln(a s / (c r)) = c (e^excess - 1 - excess)
    return c * (jnp.expm1(excess) - excess) + (a - c) * digamma_remainder(a) + rest
