"""Posteriors: how encoder outputs become q(z|x)."""

from vae_jax.posteriors.base import Posterior
from vae_jax.posteriors.correlated import FullCovariance, LowRank
from vae_jax.posteriors.delta import Delta
from vae_jax.posteriors.discrete import Binary, Categorical
from vae_jax.posteriors.flow import Coupling, InverseAutoregressive, Planar, Radial
from vae_jax.posteriors.gamma import Gamma
from vae_jax.posteriors.gaussian import Diagonal
from vae_jax.posteriors.joint import JointPosterior
from vae_jax.posteriors.laplace import Laplace
from vae_jax.posteriors.sphere import VonMises
from vae_jax.posteriors.unit import Beta, Kumaraswamy

POSTERIORS = {
    # Real and discrete codes, and both side by side.
    "gaussian": Diagonal,
    "categorical": Categorical,
    "bernoulli": Binary,
    "joint": JointPosterior,
    # A point: no density and no rate.
    "delta": Delta,
    # Flows: their rate is estimated from samples.
    "planar": Planar,
    "radial": Radial,
    "iaf": InverseAutoregressive,
    "coupling": Coupling,
    # Correlated Gaussians: their rate is in closed form if the prior factorizes.
    "full-gaussian": FullCovariance,
    "low-rank-gaussian": LowRank,
    # Other densities; those on other spaces need the prior of that space.
    "laplace": Laplace,
    "gamma": Gamma,
    "beta": Beta,
    "kumaraswamy": Kumaraswamy,
    "von-mises": VonMises,
}

__all__ = [
    "POSTERIORS",
    "Beta",
    "Binary",
    "Categorical",
    "Coupling",
    "Delta",
    "Diagonal",
    "FullCovariance",
    "Gamma",
    "InverseAutoregressive",
    "JointPosterior",
    "Kumaraswamy",
    "Laplace",
    "LowRank",
    "Planar",
    "Posterior",
    "Radial",
    "VonMises",
]
