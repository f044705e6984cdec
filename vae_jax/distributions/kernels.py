"""Distances between two samples of codes: the maximum mean discrepancy, and the sliced Wasserstein distance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp

Kernel = Literal["imq", "rbf"]


def squared_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns |x_i - y_j|^2, [N, M], for x [N, D] and y [M, D].

    From the differences: |x|^2 + |y|^2 - 2 x.y would cancel where two codes are close.

    Example:
      >>> squared_distances(jnp.zeros((1, 2)), jnp.array([[3.0, 4.0]])).tolist()
      [[25.0]]
    """
    return jnp.sum(jnp.square(x.T[:, :, None] - y.T[:, None, :]), 0)


def kernel(name: Kernel, dim: int, bandwidths: Sequence[float]) -> Callable[[jax.Array], jax.Array]:
    """Returns squared distances -> sum_s k_s, with C_s = 2 D s, the expected |z - z'|^2 of N(0, s I).

    imq: k_s = C_s / (C_s + |z - z'|^2) (arXiv:1711.01558, sec. 4);  rbf: k_s = exp(-|z - z'|^2 / C_s).

    Args:
      name: imq or rbf.
      dim: length of z, D.
      bandwidths: the s, in units of a standard normal prior.

    Example:
      >>> k = kernel("imq", dim=1, bandwidths=(0.5,))  # C = 1
      >>> float(k(jnp.array(1.0)))
      0.5
    """
    scales = [2.0 * dim * s for s in bandwidths]
    if name == "imq":
        return lambda squared: sum((c / (c + squared) for c in scales), jnp.zeros(()))
    return lambda squared: sum((jnp.exp(-squared / c) for c in scales), jnp.zeros(()))


def mmd(x: jax.Array, y: jax.Array, k: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Returns the unbiased estimate of MMD^2, a scalar; it may be negative (Gretton et al. 2012, eq. 3).

    MMD^2 = 1/(N(N-1)) sum_{i!=j} k(x_i, x_j) + 1/(M(M-1)) sum_{i!=j} k(y_i, y_j) - 2/(NM) sum_ij k(x_i, y_j).

    Args:
      x: codes [N, D].
      y: codes [M, D].
      k: squared distances -> kernel values.

    Example:
      >>> x = jnp.array([[0.0], [2.0]])
      >>> k = kernel("imq", dim=1, bandwidths=(0.5,))  # k = 1 / (1 + |z - z'|^2): 1 and 1/5
      >>> round(float(mmd(x, x, k)), 4)  # 1/5 + 1/5 - 2 * 3/5
      -0.8
    """

    def others(x: jax.Array) -> jax.Array:
        n = len(x)
        each = k(squared_distances(x, x))
        return jnp.sum(jnp.where(jnp.eye(n, dtype=bool), 0.0, each)) / max(n * (n - 1), 1)

    return others(x) + others(y) - 2.0 * jnp.mean(k(squared_distances(x, y)))


def sliced_wasserstein(x: jax.Array, y: jax.Array, directions: jax.Array) -> jax.Array:
    """Returns the mean over directions of the squared 2-Wasserstein distance of the projections, a scalar.

    SW^2 = 1/L sum_l 1/N sum_i (x.w_l sorted - y.w_l sorted)_i^2 (arXiv:1804.01947, eq. 15).

    Args:
      x: codes [N, D].
      y: codes [N, D].
      directions: w, unit vectors [L, D].

    Example:
      >>> x, y = jnp.array([[0.0], [1.0]]), jnp.array([[3.0], [2.0]])
      >>> float(sliced_wasserstein(x, y, jnp.ones((1, 1))))  # each moves by 2
      4.0
    """

    def along(x: jax.Array) -> jax.Array:
        return jnp.sort(jnp.matmul(x, directions.T, precision="highest"), 0)

    return jnp.mean(jnp.square(along(x) - along(y)))


def directions(key: jax.Array, n: int, dim: int) -> jax.Array:
    """Returns n points of the unit sphere, uniform, [n, dim].

    Example:
      >>> w = directions(jax.random.key(0), 4, 3)
      >>> [round(float(length), 4) for length in jnp.linalg.norm(w, axis=-1)]
      [1.0, 1.0, 1.0, 1.0]
    """
    w = jax.random.normal(key, (n, dim))
    return w / jnp.maximum(jnp.linalg.norm(w, axis=-1, keepdims=True), 1e-12)
