"""Priors over codes."""

from vae_jax.priors.base import Links, Prior
from vae_jax.priors.normal import Normal

PRIORS = {"normal": Normal}

__all__ = ["PRIORS", "Links", "Normal", "Prior"]
