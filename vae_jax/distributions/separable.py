"""Densities that are a product over dimensions, one dimension at a time: what total correlation needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.distributions.gaussian import LOG_2PI, DiagGaussian


def gaussian_density(q: DiagGaussian, z: jax.Array) -> jax.Array:
    """Returns log N(z_j; mean_j, var_j) in nats, elementwise.

    Example:
      >>> q = DiagGaussian(jnp.array([0.0, 1.0]), jnp.zeros(2))
      >>> [round(float(nats), 4) for nats in gaussian_density(q, jnp.zeros(2))]
      [-0.9189, -1.4189]
    """
    return -0.5 * (jnp.square(z - q.mean) * jnp.exp(-q.log_var) + q.log_var + LOG_2PI)


# type of q -> (q, z) -> log q_j(z_j), elementwise in all its parameters and z.
SEPARABLE: dict[type, Callable[[Any, jax.Array], jax.Array]] = {DiagGaussian: gaussian_density}


def log_densities(q: Any, z: jax.Array) -> jax.Array:
    """Returns log q(z_bj|x_m) in nats, [D, B, M]: every code under every posterior, by dimension.

    Args:
      q: posteriors of M examples, of a type in `SEPARABLE`; parameters [M, D].
      z: codes [B, D].

    Example:
      >>> q = DiagGaussian(jnp.array([[0.0], [1.0]]), jnp.zeros((2, 1)))  # M = 2 examples, D = 1
      >>> [round(float(nats), 4) for nats in log_densities(q, jnp.zeros((1, 1)))[0, 0]]
      [-0.9189, -1.4189]
    """
    # Dimensions first: XLA:CPU sums the last axis of [B, M, D] in a scalar loop.
    each = jax.tree.map(lambda leaf: leaf.T[:, None, :], q)
    return SEPARABLE[type(q)](each, z.T[:, :, None])
