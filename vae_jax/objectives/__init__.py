"""Objectives of the single-latent family, and gradient estimators."""

from vae_jax.objectives.aggressive import Aggressive
from vae_jax.objectives.base import Objective, Terms
from vae_jax.objectives.capacity import Capacity
from vae_jax.objectives.critic import Adversarial
from vae_jax.objectives.dip import DipI, DipII
from vae_jax.objectives.elbo import Beta, Elbo
from vae_jax.objectives.factor import Factor
from vae_jax.objectives.free_bits import FreeBits, MinimumKL, SoftFreeBits
from vae_jax.objectives.geco import Geco
from vae_jax.objectives.gradients import DoublyReparameterized, Pathwise, StickingTheLanding
from vae_jax.objectives.importance import CIWAE, IWAE, MIWAE, PIWAE
from vae_jax.objectives.joint import JointCapacity
from vae_jax.objectives.mmd import InfoVAE, WaeMMD
from vae_jax.objectives.regularized import RaeGP, RaeL2
from vae_jax.objectives.score import Arm, DisArm, LeaveOneOut, Reinforce
from vae_jax.objectives.total_correlation import BetaTC
from vae_jax.objectives.wasserstein import SlicedWAE, WaeGAN

OBJECTIVES = {
    # Bounds on log p(x) from one posterior sample.
    "elbo": Elbo,
    "beta": Beta,
    "aggressive": Aggressive,
    # Bounds from several importance-weighted samples.
    "iwae": IWAE,
    "miwae": MIWAE,
    "piwae": PIWAE,
    "ciwae": CIWAE,
    # A target or a floor for the rate.
    "joint-capacity": JointCapacity,
    "capacity": Capacity,
    "free-bits": FreeBits,
    "soft-free-bits": SoftFreeBits,
    "minimum-kl": MinimumKL,
    # Disentanglement: penalties on the dependence between dimensions of the code.
    "beta-tc": BetaTC,
    "factor": Factor,
    "dip-i": DipI,
    "dip-ii": DipII,
    # Distances between the aggregate posterior and the prior.
    "mmd": InfoVAE,
    "wae-mmd": WaeMMD,
    "wae-gan": WaeGAN,
    "sliced-wae": SlicedWAE,
    # A constraint on the reconstruction error.
    "geco": Geco,
    # Regularized autoencoders, for point posteriors only.
    "rae-l2": RaeL2,
    "rae-gp": RaeGP,
}
GRADIENTS = {
    # Reparameterized samples.
    "pathwise": Pathwise,
    "stl": StickingTheLanding,
    "dreg": DoublyReparameterized,
    # Score functions, which discrete codes can use too.
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
    "Adversarial",
    "Aggressive",
    "Arm",
    "Beta",
    "BetaTC",
    "Capacity",
    "DipI",
    "DipII",
    "DisArm",
    "DoublyReparameterized",
    "Elbo",
    "Factor",
    "FreeBits",
    "Geco",
    "InfoVAE",
    "JointCapacity",
    "LeaveOneOut",
    "MinimumKL",
    "Objective",
    "Pathwise",
    "RaeGP",
    "RaeL2",
    "Reinforce",
    "SlicedWAE",
    "SoftFreeBits",
    "StickingTheLanding",
    "Terms",
    "WaeGAN",
    "WaeMMD",
]
