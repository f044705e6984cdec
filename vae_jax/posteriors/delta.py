"""The point posterior: a deterministic encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from vae_jax.posteriors.base import Posterior


class Point(NamedTuple):
    """All mass at one code per example: there is no density. `z`: [B, D]."""

    z: jax.Array

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns z [B, D], whatever the keys."""
        del keys
        return self.z

    def sample_and_log_prob(self, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Raises TypeError: a point has no density."""
        del keys
        raise TypeError("a point posterior has no density")

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Raises TypeError: a point has no density."""
        del z
        raise TypeError("a point posterior has no density")

    def mode(self) -> jax.Array:
        """Returns z."""
        return self.z

    def variance(self) -> jax.Array:
        """Returns 0 of every dimension, [B, D]."""
        return jnp.zeros_like(self.z)


@dataclass(frozen=True)
class Delta(Posterior):
    """Deterministic code z = f(x), no density: for regularized and Wasserstein autoencoders (arXiv:1903.12436)."""

    # No sampling noise reaches the decoder: what keeps the code in place is the objective's regularizer.
    has_log_prob: ClassVar[bool] = False
    deterministic: ClassVar[bool] = True

    def outputs(self, latent_dim: int) -> int:
        return latent_dim

    def build(self, params, out, step, train) -> Point:
        del params, step, train
        # The encoder's outputs are the code, [B, D].
        return Point(out)
