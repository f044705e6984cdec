"""Objectives of the single-latent family, and gradient estimators."""

from vae_jax.objectives.base import Objective, Terms
from vae_jax.objectives.elbo import Beta, Elbo
from vae_jax.objectives.gradients import DoublyReparameterized, Pathwise, StickingTheLanding
from vae_jax.objectives.importance import CIWAE, IWAE, MIWAE, PIWAE
from vae_jax.objectives.joint import JointCapacity
from vae_jax.objectives.score import Arm, DisArm, LeaveOneOut, Reinforce

OBJECTIVES = {
    "elbo": Elbo,
    "beta": Beta,
    "iwae": IWAE,
    "miwae": MIWAE,
    "piwae": PIWAE,
    "ciwae": CIWAE,
    "joint-capacity": JointCapacity,
}
GRADIENTS = {
    "pathwise": Pathwise,
    "stl": StickingTheLanding,
    "dreg": DoublyReparameterized,
    "reinforce": Reinforce,
    "rloo": LeaveOneOut,
    "arm": Arm,
    "disarm": DisArm,
}

__all__ = [
    "CIWAE",
    "GRADIENTS",
    "IWAE",
    "MIWAE",
    "OBJECTIVES",
    "PIWAE",
    "Arm",
    "Beta",
    "DisArm",
    "DoublyReparameterized",
    "Elbo",
    "JointCapacity",
    "LeaveOneOut",
    "Objective",
    "Pathwise",
    "Reinforce",
    "StickingTheLanding",
    "Terms",
]
