"""Posteriors: how encoder outputs become q(z|x)."""

from vae_jax.posteriors.base import Posterior
from vae_jax.posteriors.discrete import Binary, Categorical
from vae_jax.posteriors.gaussian import Diagonal
from vae_jax.posteriors.joint import JointPosterior

POSTERIORS = {
    "gaussian": Diagonal,
    "categorical": Categorical,
    "bernoulli": Binary,
    "joint": JointPosterior,
}

__all__ = [
    "POSTERIORS",
    "Binary",
    "Categorical",
    "Diagonal",
    "JointPosterior",
    "Posterior",
]
