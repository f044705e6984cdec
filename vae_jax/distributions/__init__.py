"""Distributions over codes, and the table of their closed-form divergences."""

from vae_jax.distributions.divergence import closed_kl
from vae_jax.distributions.gaussian import DiagGaussian, kl

__all__ = ["DiagGaussian", "closed_kl", "kl"]
