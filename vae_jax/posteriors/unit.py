"""Posteriors over codes in (0, 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp

from vae_jax.distributions import unit
from vae_jax.distributions.special import positive
from vae_jax.posteriors.base import Posterior
from vae_jax.spaces import Space, UnitInterval

# Least shape parameter. Below it most draws are closer to 0 or 1 than float32 can represent.
FLOOR = 1e-2


@dataclass(frozen=True)
class Beta(Posterior):
    """Beta: codes in (0, 1), reparameterized implicitly through two gamma variables (arXiv:1805.08498)."""

    space: ClassVar[type[Space]] = UnitInterval
    factorized: ClassVar[bool] = True

    def outputs(self, latent_dim: int) -> int:
        return 2 * latent_dim

    def build(self, params, out, step, train) -> unit.Beta:
        del params, step, train
        a, b = jnp.split(out, 2, axis=-1)
        # Outputs of 0 give Beta(1.01, 1.01): close to the uniform prior, a rate close to 0 nats.
        return unit.Beta(positive(a, FLOOR), positive(b, FLOOR))


@dataclass(frozen=True)
class Kumaraswamy(Posterior):
    """Kumaraswamy: codes in (0, 1) by an explicit inverse CDF, near to a beta variable (arXiv:1605.06197)."""

    space: ClassVar[type[Space]] = UnitInterval
    factorized: ClassVar[bool] = True

    def outputs(self, latent_dim: int) -> int:
        return 2 * latent_dim

    def build(self, params, out, step, train) -> unit.Kumaraswamy:
        del params, step, train
        a, b = jnp.split(out, 2, axis=-1)
        # At a = b = 1 this is the uniform distribution too.
        return unit.Kumaraswamy(positive(a, FLOOR), positive(b, FLOOR))
