"""Priors over codes."""

from vae_jax.priors.base import Links, Prior
from vae_jax.priors.discrete import BernoulliPrior, JointPrior, UniformCategorical
from vae_jax.priors.exemplar import Exemplar
from vae_jax.priors.mixture import MixtureOfGaussians
from vae_jax.priors.normal import Normal
from vae_jax.priors.vamp import Vamp

PRIORS = {
    "normal": Normal,
    "mog": MixtureOfGaussians,
    "vamp": Vamp,
    "exemplar": Exemplar,
    "categorical": UniformCategorical,
    "bernoulli": BernoulliPrior,
    "joint": JointPrior,
}

__all__ = [
    "PRIORS",
    "BernoulliPrior",
    "Exemplar",
    "JointPrior",
    "Links",
    "MixtureOfGaussians",
    "Normal",
    "Prior",
    "UniformCategorical",
    "Vamp",
]
