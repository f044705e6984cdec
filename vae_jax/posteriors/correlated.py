"""Gaussian posteriors with correlated dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp

from vae_jax.distributions.correlated import FullGaussian, LowRankGaussian
from vae_jax.distributions.special import positive
from vae_jax.errors import InputError, option
from vae_jax.options.ranges import AtLeast
from vae_jax.posteriors.base import Posterior

# Least marginal standard deviation, and greatest norm of a row of weights.
STD_FLOOR = 1e-4
MAX_NORM = 10.0


def bounded(rows: jax.Array) -> jax.Array:
    """Returns the rows shortened to a norm under 10, w / sqrt(1 + |w|^2 / 100): no dimension is more than 99% fixed by
    the others, and the inverse of the covariance stays in float32 whatever the encoder gives.
    """
    # A smooth bound on the norm, not on entries: it keeps the direction of a row, and a gradient at any size.
    return rows / jnp.sqrt(1.0 + jnp.sum(jnp.square(rows / MAX_NORM), -1, keepdims=True))


@dataclass(frozen=True)
class FullCovariance(Posterior):
    """Full-covariance Gaussian: a Cholesky factor of the correlations from the encoder (arXiv:1906.02691)."""

    def outputs(self, latent_dim: int) -> int:
        return 2 * latent_dim + latent_dim * (latent_dim - 1) // 2

    def build(self, params, out, step, train) -> FullGaussian:
        del params, step, train
        dim = int((9 + 8 * out.shape[-1]) ** 0.5 - 3) // 2  # outputs = D (D + 3) / 2
        # [B, D] means, [B, D] marginal deviations, and the D (D - 1) / 2 entries below the diagonal, row by row.
        mean, raw, below = jnp.split(out, [dim, 2 * dim], axis=-1)
        rows, columns = jnp.tril_indices(dim, -1)
        weights = jnp.zeros((out.shape[0], dim, dim)).at[:, rows, columns].set(below)
        # With deviations apart from correlations the KL is that of the marginals plus the total correlation.
        return FullGaussian(mean, positive(raw, STD_FLOOR), bounded(weights))


@dataclass(frozen=True)
class LowRank(Posterior):
    """Gaussian with a diagonal plus low-rank covariance (arXiv:1701.03208)."""

    rank: Annotated[int, AtLeast(1)] = 2
    """Rank of what is added to the diagonal."""

    def check(self, latent_dim: int) -> None:
        # More columns than dimensions add parameters and no covariance that D columns could not give.
        if self.rank > latent_dim:
            raise InputError(
                f"model.posterior.rank: {self.rank} is more than the {latent_dim} latent dimensions; "
                f"choose {option('model.posterior.rank', latent_dim)} or less"
            )

    def outputs(self, latent_dim: int) -> int:
        return (2 + self.rank) * latent_dim

    def build(self, params, out, step, train) -> LowRankGaussian:
        del params, step, train
        dim = out.shape[-1] // (2 + self.rank)
        # [B, D], [B, D] and the factor W [B, D, rank].
        mean, raw, weights = jnp.split(out, [dim, 2 * dim], axis=-1)
        weights = bounded(weights.reshape(-1, dim, self.rank))
        return LowRankGaussian(mean, positive(raw, STD_FLOOR), weights)
