"""Objectives of the single-latent family."""

from vae_jax.objectives.elbo import Beta, Elbo, Terms

OBJECTIVES = {"elbo": Elbo, "beta": Beta}

__all__ = ["OBJECTIVES", "Beta", "Elbo", "Terms"]
