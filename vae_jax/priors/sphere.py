"""The uniform prior over the unit sphere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from vae_jax import spaces
from vae_jax.distributions.sphere import UniformSphere, uniform_directions
from vae_jax.errors import InputError, option
from vae_jax.priors.base import Links, Prior


@dataclass(frozen=True)
class Sphere(Prior):
    """Uniform over the unit sphere of R^latent_dim (arXiv:1804.00891)."""

    space: ClassVar[type[spaces.Space]] = spaces.Sphere

    def check(self, code_dim: int) -> None:
        if code_dim < 2:
            raise InputError(
                "model.latent_dim: the unit sphere of 1 dimension is two points, no place for a density; "
                f"choose {option('model.latent_dim', 2)} or more"
            )

    def distribution(self, params: Any, state: Any, links: Links) -> UniformSphere:
        del params, state
        # Carries the dimension alone: the density has no parameters.
        return UniformSphere(jnp.zeros((1, links.code_dim)))

    def sample(self, params, state, key, n: int, links: Links, temperature: float = 1.0) -> jax.Array:
        """Returns uniform points of the sphere [n, D]; a temperature has no meaning here."""
        # A sharper uniform density would have to choose a direction.
        del params, state, temperature
        return uniform_directions(key, (n, links.code_dim))
