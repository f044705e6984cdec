"""Likelihoods: how decoder outputs become p(x|z)."""

from vae_jax.likelihoods.continuous import BetaDensity, ContinuousBernoulli, Laplace, LogCosh, StudentT
from vae_jax.likelihoods.counts import Multinomial, NegativeBinomial, Poisson, ZeroInflatedNB
from vae_jax.likelihoods.decoded import AutoregressivePixels, BernoulliPixels, GaussianPixels
from vae_jax.likelihoods.discretized import Categorical256, Logistic256, LogisticMixture
from vae_jax.likelihoods.logit_laplace import LogitLaplace
from vae_jax.likelihoods.losses import MsSsim
from vae_jax.likelihoods.pixels import (
    Bernoulli,
    Gaussian,
    GaussianLearned,
    GaussianOptimal,
    GaussianPixelwise,
    PixelLikelihood,
)
from vae_jax.likelihoods.table import Table

# Name of the option -> config: Bernoulli, Gaussian, further densities, masses of gray levels, a loss, counts, tables.
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
    "logit-laplace": LogitLaplace,
    "logistic-256": Logistic256,
    "logistic-mixture": LogisticMixture,
    "categorical-256": Categorical256,
    "ms-ssim": MsSsim,
    "poisson": Poisson,
    "negative-binomial": NegativeBinomial,
    "zero-inflated-nb": ZeroInflatedNB,
    "multinomial": Multinomial,
    "table": Table,
}

__all__ = [
    "LIKELIHOODS",
    "AutoregressivePixels",
    "Bernoulli",
    "BernoulliPixels",
    "Gaussian",
    "GaussianLearned",
    "GaussianOptimal",
    "GaussianPixels",
    "GaussianPixelwise",
    "LogitLaplace",
    "Multinomial",
    "NegativeBinomial",
    "PixelLikelihood",
    "Poisson",
    "Table",
    "ZeroInflatedNB",
]
