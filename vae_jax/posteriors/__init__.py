"""Posteriors: how encoder outputs become q(z|x)."""

from vae_jax.posteriors.base import Posterior
from vae_jax.posteriors.gaussian import Diagonal

POSTERIORS = {"gaussian": Diagonal}

__all__ = ["POSTERIORS", "Diagonal", "Posterior"]
