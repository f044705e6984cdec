"""Objectives of the single-latent family, and gradient estimators."""

from vae_jax.objectives.base import Objective, Terms
from vae_jax.objectives.elbo import Beta, Elbo
from vae_jax.objectives.gradients import DoublyReparameterized, Pathwise, StickingTheLanding

OBJECTIVES = {"elbo": Elbo, "beta": Beta}
GRADIENTS = {"pathwise": Pathwise, "stl": StickingTheLanding}

__all__ = [
    "GRADIENTS",
    "OBJECTIVES",
    "Beta",
    "DoublyReparameterized",
    "Elbo",
    "Objective",
    "Pathwise",
    "StickingTheLanding",
    "Terms",
]
