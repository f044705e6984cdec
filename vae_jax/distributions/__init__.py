"""Distributions over codes and over images."""

from vae_jax.distributions.continuous import BetaDensity, ContinuousBernoulli, Laplace, LogCosh, StudentT
from vae_jax.distributions.discretized import Categorical256, Logistic256, LogisticMixture
from vae_jax.distributions.divergence import closed_kl
from vae_jax.distributions.gaussian import DiagGaussian, kl
from vae_jax.distributions.likelihoods import AutoregressivePixels, BernoulliPixels, GaussianPixels
from vae_jax.distributions.losses import MsSsim
from vae_jax.distributions.pixels import (
    Bernoulli,
    Gaussian,
    GaussianLearned,
    GaussianOptimal,
    GaussianPixelwise,
    PixelLikelihood,
)

LIKELIHOODS = {
    "bernoulli": Bernoulli,
    "gaussian": Gaussian,
    "gaussian-learned": GaussianLearned,
    "gaussian-pixelwise": GaussianPixelwise,
    "gaussian-optimal": GaussianOptimal,
    "continuous-bernoulli": ContinuousBernoulli,
    "laplace": Laplace,
    "student-t": StudentT,
    "log-cosh": LogCosh,
    "beta": BetaDensity,
    "logistic-256": Logistic256,
    "logistic-mixture": LogisticMixture,
    "categorical-256": Categorical256,
    "ms-ssim": MsSsim,
}

__all__ = [
    "LIKELIHOODS",
    "AutoregressivePixels",
    "Bernoulli",
    "BernoulliPixels",
    "DiagGaussian",
    "Gaussian",
    "GaussianLearned",
    "GaussianOptimal",
    "GaussianPixels",
    "GaussianPixelwise",
    "PixelLikelihood",
    "closed_kl",
    "kl",
]
