"""The posterior over points of a sphere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from vae_jax.distributions.sphere import VonMisesFisher
from vae_jax.errors import InputError, option
from vae_jax.posteriors.base import Posterior
from vae_jax.spaces import Space, Sphere


@dataclass(frozen=True)
class VonMises(Posterior):
    """von Mises-Fisher: codes on the unit sphere of R^latent_dim (arXiv:1804.00891)."""

    space: ClassVar[type[Space]] = Sphere

    def check(self, latent_dim: int) -> None:
        if latent_dim < 2:
            raise InputError(
                "model.latent_dim: the unit sphere of 1 dimension is two points, no place for a density; "
                f"choose {option('model.latent_dim', 2)} or more"
            )

    def outputs(self, latent_dim: int) -> int:
        # A direction of D numbers and one concentration: the density is isotropic about its mean.
        return latent_dim + 1

    def build(self, params, out, step, train) -> VonMisesFisher:
        del params, step, train
        direction, raw = out[:, :-1], out[:, -1:]
        # An encoder that gives 0 means no direction; the first axis then stands in.
        square = jnp.sum(jnp.square(direction), -1, keepdims=True)
        direction = jnp.where(square > 1e-20, direction, jnp.eye(1, direction.shape[-1]))
        # Zeros are replaced before the norm is taken: its gradient at 0 is NaN, which a later `where` would not remove.
        mean = direction / jnp.linalg.norm(direction, axis=-1, keepdims=True)
        # A concentration of 1 or more: close to 0 the density is uniform, and its direction carries nothing.
        return VonMisesFisher(mean, jax.nn.softplus(raw) + 1.0)
