"""Posteriors: how encoder outputs become q(z|x)."""

from vae_jax.posteriors.base import Posterior
from vae_jax.posteriors.delta import Delta
from vae_jax.posteriors.discrete import Binary, Categorical
from vae_jax.posteriors.flow import Coupling, InverseAutoregressive, Planar, Radial
from vae_jax.posteriors.gaussian import Diagonal
from vae_jax.posteriors.joint import JointPosterior

POSTERIORS = {
    "gaussian": Diagonal,
    "categorical": Categorical,
    "bernoulli": Binary,
    "joint": JointPosterior,
    "delta": Delta,
    "planar": Planar,
    "radial": Radial,
    "iaf": InverseAutoregressive,
    "coupling": Coupling,
}

__all__ = [
    "POSTERIORS",
    "Binary",
    "Categorical",
    "Coupling",
    "Delta",
    "Diagonal",
    "InverseAutoregressive",
    "JointPosterior",
    "Planar",
    "Posterior",
    "Radial",
]
