"""Distributions over codes and over images."""

from vae_jax.distributions.divergence import closed_kl
from vae_jax.distributions.gaussian import DiagGaussian, kl
from vae_jax.distributions.likelihoods import AutoregressivePixels, BernoulliPixels, GaussianPixels
from vae_jax.distributions.pixels import (
    LIKELIHOODS,
    Bernoulli,
    Gaussian,
    GaussianLearned,
    GaussianOptimal,
    GaussianPixelwise,
    PixelLikelihood,
)

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
