"""Mixtures over codes: of diagonal Gaussians, and of inferred posteriors (an aggregate posterior)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vae_jax.distributions.gaussian import LOG_2PI


class GaussianMixture(NamedTuple):
    """sum_k w_k N(mean_k, diag(exp(log_var_k))). `log_weights`: [K], normalized; `mean`, `log_var`: [K, D].

    Example:
      >>> p = GaussianMixture(jnp.log(jnp.array([0.5, 0.5])), jnp.array([[-1.0], [1.0]]), jnp.zeros((2, 1)))
      >>> round(float(p.log_prob(jnp.zeros((1, 1)))[0]), 4)  # ln N(1; 0, 1) of both
      -1.4189
    """

    log_weights: jax.Array
    mean: jax.Array
    log_var: jax.Array

    def log_components(self, z: jax.Array) -> jax.Array:
        """Returns log w_k + log N(z; mean_k, var_k) in nats, [B, K], for z [B, D]."""
        constant = self.log_weights - 0.5 * jnp.sum(self.log_var + LOG_2PI, -1)

        # One dimension at a time, a [B, K] each: XLA:CPU sums the last axis of [B, K, D] in a scalar loop, eight times
        # slower; the expanded square by matrix products is faster still, but cancels where a component is narrow.
        def add(total: jax.Array, dim: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
            z_d, mean_d, precision_d = dim
            return total + jnp.square(z_d[:, None] - mean_d[None]) * precision_d[None], None

        start = jnp.zeros((z.shape[0], self.mean.shape[0]))
        squared, _ = jax.lax.scan(add, start, (z.T, self.mean.T, jnp.exp(-self.log_var).T))
        return constant[None] - 0.5 * squared

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Returns log sum_k w_k N(z; mean_k, var_k) in nats [B], by log-sum-exp."""
        return jax.nn.logsumexp(self.log_components(z), axis=-1)

    def sample(self, key: jax.Array, n: int, temperature: float | jax.Array = 1.0) -> jax.Array:
        """Returns n draws [n, D]: a component for each, then its Gaussian with `temperature` times its deviation."""
        pick, noise = jax.random.split(key)
        k = jax.random.categorical(pick, self.log_weights, shape=(n,))
        eps = jax.random.normal(noise, (n, self.mean.shape[-1]))
        return self.mean[k] + temperature * jnp.exp(0.5 * self.log_var[k]) * eps


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AggregatePosterior:
    """1/K sum_k q(z|x_k) of any posterior with `log_prob`. `posterior`: q of K inputs.

    K is no leaf: it is a shape, which must stay a number where the tree is traced (`stop_gradient` of a prior).

    Example:
      >>> from vae_jax.distributions import DiagGaussian
      >>> q = AggregatePosterior(DiagGaussian(jnp.array([[-1.0], [1.0]]), jnp.zeros((2, 1))), count=2)
      >>> round(float(q.log_prob(jnp.zeros((1, 1)))[0]), 4)  # ln N(1; 0, 1) of both
      -1.4189
    """

    posterior: Any
    count: int = field(metadata={"static": True})

    def log_components(self, z: jax.Array) -> jax.Array:
        """Returns log q(z_b|x_k) in nats, [B, K]: each z against all K posteriors."""
        # Only `log_prob` of K codes at once is called on q: a flow's own weights have no axis K to map over.
        shape = (self.count, z.shape[-1])
        return jax.vmap(lambda one: self.posterior.log_prob(jnp.broadcast_to(one[None], shape)))(z)

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Returns log 1/K sum_k q(z|x_k) in nats [B]."""
        return jax.nn.logsumexp(self.log_components(z), axis=-1) - jnp.log(float(self.count))
