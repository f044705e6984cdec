"""Priors over codes."""

from vae_jax.priors.ar1 import DeltaAR1
from vae_jax.priors.autoregressive import Autoregressive
from vae_jax.priors.base import Links, Prior
from vae_jax.priors.discrete import BernoulliPrior, JointPrior, UniformCategorical
from vae_jax.priors.exemplar import Exemplar
from vae_jax.priors.flow import FlowPrior
from vae_jax.priors.gamma import Gamma
from vae_jax.priors.laplace import Laplace
from vae_jax.priors.learned import ConditionalNormal, LearnedNormal
from vae_jax.priors.mixture import MixtureOfGaussians
from vae_jax.priors.normal import Normal
from vae_jax.priors.resampled import Resampled
from vae_jax.priors.sphere import Sphere
from vae_jax.priors.unit import Beta
from vae_jax.priors.vamp import Vamp

PRIORS = {
    # Real codes: a fixed density, or a mixture.
    "normal": Normal,
    "mog": MixtureOfGaussians,
    "vamp": Vamp,
    "exemplar": Exemplar,
    # Discrete codes, and both kinds side by side.
    "categorical": UniformCategorical,
    "bernoulli": BernoulliPrior,
    "joint": JointPrior,
    # Real codes: trained or correlated densities.
    "learned-normal": LearnedNormal,
    "conditional-normal": ConditionalNormal,
    "resampled": Resampled,
    "flow": FlowPrior,
    "autoregressive": Autoregressive,
    "ar1": DeltaAR1,
    # Other densities; those on other spaces need the posterior of that space.
    "laplace": Laplace,
    "gamma": Gamma,
    "beta": Beta,
    "sphere": Sphere,
}

__all__ = [
    "PRIORS",
    "Autoregressive",
    "BernoulliPrior",
    "Beta",
    "ConditionalNormal",
    "DeltaAR1",
    "Exemplar",
    "FlowPrior",
    "Gamma",
    "JointPrior",
    "Laplace",
    "LearnedNormal",
    "Links",
    "MixtureOfGaussians",
    "Normal",
    "Prior",
    "Resampled",
    "Sphere",
    "UniformCategorical",
    "Vamp",
]
