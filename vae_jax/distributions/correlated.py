"""Gaussians with correlated dimensions. Their parameters are the standard deviations and the shape of a correlation.

With u = (z - mean) / std, both have Var[u_i] = 1, so KL to a factorized prior is the KL of the marginals plus the
total correlation TC(q) = -1/2 ln det Corr(u), both free of cancellation.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular

from vae_jax import prng
from vae_jax.distributions.gaussian import LOG_2PI, DiagGaussian


class FullGaussian(NamedTuple):
    """N(mean, S) with S = diag(std) R R^T diag(std); row i of R is (w_i1, ..., w_i,i-1, 1) / sqrt(1 + |w_i|^2).

    Attributes:
      mean: [B, D].
      std: [B, D], the marginal standard deviations.
      weights: [B, D, D], strictly lower triangular.

    Example:
      >>> weights = jnp.array([[[0.0, 0.0], [1.0, 0.0]]])  # correlation 1 / sqrt(2)
      >>> q = FullGaussian(jnp.zeros((1, 2)), jnp.ones((1, 2)), weights)
      >>> round(float(q.total_correlation()[0]), 4)  # ln(2) / 2
      0.3466
      >>> round(float(q.log_prob(jnp.zeros((1, 2)))[0]), 4)  # ln(2) / 2 - ln(2 pi)
      -1.4913
    """

    mean: jax.Array
    std: jax.Array
    weights: jax.Array

    def marginals(self) -> DiagGaussian:
        """Returns prod_j q(z_j)."""
        return DiagGaussian(self.mean, 2.0 * jnp.log(self.std))

    def total_correlation(self) -> jax.Array:
        """Returns KL(q(z) || prod_j q(z_j)) = 1/2 sum_i ln(1 + |w_i|^2) in nats [B]."""
        return 0.5 * jnp.sum(jnp.log1p(jnp.sum(jnp.square(self.weights), -1)), -1)

    def _scale(self) -> jax.Array:
        return self.std / jnp.sqrt(1.0 + jnp.sum(jnp.square(self.weights), -1))

    def sample_and_log_prob(self, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns z = mean + diag(std) R eps [B, D], from one key per example, and log q(z) [B]."""
        noise = prng.normal(keys, self.mean.shape[1:])
        z = self.mean + self._scale() * (noise + jnp.einsum("bij,bj->bi", self.weights, noise))
        return z, self._density(noise)

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns the z of `sample_and_log_prob`."""
        return self.sample_and_log_prob(keys)[0]

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Returns log N(z; mean, S) in nats [B], through one triangular solve."""
        unit = self.weights + jnp.eye(z.shape[-1])[None]
        centered = ((z - self.mean) / self._scale())[..., None]
        return self._density(solve_triangular(unit, centered, lower=True, unit_diagonal=True)[..., 0])

    def _density(self, noise: jax.Array) -> jax.Array:
        """Returns log q of the z that was made from `noise`."""
        terms = 0.5 * jnp.square(noise) + 0.5 * LOG_2PI + jnp.log(self.std)
        return self.total_correlation() - jnp.sum(terms, -1)

    def mode(self) -> jax.Array:
        """Returns the mean, which is the mode."""
        return self.mean

    def variance(self) -> jax.Array:
        """Returns std^2 [B, D]."""
        return jnp.square(self.std)


class LowRankGaussian(NamedTuple):
    """N(mean, S), S = diag(t) (I + W W^T) diag(t), t_i = std_i / sqrt(1 + |w_i|^2): diagonal plus rank r.

    Attributes:
      mean: [B, D].
      std: [B, D], the marginal standard deviations.
      weights: W [B, D, r].

    Example:
      >>> q = LowRankGaussian(jnp.zeros((1, 2)), jnp.ones((1, 2)), jnp.ones((1, 2, 1)))  # correlation 1/2
      >>> round(float(q.total_correlation()[0]), 4)  # -ln(1 - 1/4) / 2
      0.1438
    """

    mean: jax.Array
    std: jax.Array
    weights: jax.Array

    def marginals(self) -> DiagGaussian:
        """Returns prod_j q(z_j)."""
        return DiagGaussian(self.mean, 2.0 * jnp.log(self.std))

    def _capacitance(self) -> jax.Array:
        """Returns the Cholesky factor of I + W^T W, [B, r, r]."""
        rank = self.weights.shape[-1]
        return jnp.linalg.cholesky(jnp.eye(rank)[None] + jnp.einsum("bir,bis->brs", self.weights, self.weights))

    def total_correlation(self) -> jax.Array:
        """Returns KL(q(z) || prod_j q(z_j)) = 1/2 [sum_i ln(1 + |w_i|^2) - ln det(I + W^T W)] in nats [B]."""
        log_det = 2.0 * jnp.sum(jnp.log(jnp.diagonal(self._capacitance(), axis1=-2, axis2=-1)), -1)
        return 0.5 * (jnp.sum(jnp.log1p(jnp.sum(jnp.square(self.weights), -1)), -1) - log_det)

    def _scale(self) -> jax.Array:
        return self.std / jnp.sqrt(1.0 + jnp.sum(jnp.square(self.weights), -1))

    def sample_and_log_prob(self, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns z = mean + t (eps + W v) [B, D], from one key per example, and log q(z) [B]."""
        dim, rank = self.weights.shape[1:]
        noise = prng.normal(keys, (dim + rank,))
        u = noise[:, :dim] + jnp.einsum("bir,br->bi", self.weights, noise[:, dim:])
        return self.mean + self._scale() * u, self._density(u)

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns the z of `sample_and_log_prob`."""
        return self.sample_and_log_prob(keys)[0]

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Returns log N(z; mean, S) in nats [B], in O(D r^2)."""
        return self._density((z - self.mean) / self._scale())

    def _density(self, u: jax.Array) -> jax.Array:
        # Woodbury as a sum of squares, u^T (I + W W^T)^-1 u = |u - W v|^2 + |v|^2, v = (I + W^T W)^-1 W^T u: its usual
        # difference of squares cancels.
        projected = jnp.einsum("bir,bi->br", self.weights, u)
        v = jax.vmap(lambda c, b: cho_solve((c, True), b))(self._capacitance(), projected)
        rest = u - jnp.einsum("bir,br->bi", self.weights, v)
        squares = jnp.sum(jnp.square(rest) + LOG_2PI + 2.0 * jnp.log(self.std), -1) + jnp.sum(jnp.square(v), -1)
        return self.total_correlation() - 0.5 * squares

    def mode(self) -> jax.Array:
        """Returns the mean, which is the mode."""
        return self.mean

    def variance(self) -> jax.Array:
        """Returns std^2 [B, D]."""
        return jnp.square(self.std)
