"""The options of a single-latent VAE: one component of each kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from vae_jax import likelihoods, networks, objectives, posteriors, priors
from vae_jax.models.condition import Condition
from vae_jax.options import needs
from vae_jax.options.ranges import AtLeast

# kind -> {registry name: class}: what messages call a component, and what they advise instead.
REGISTRIES: Mapping[str, Mapping[str, type]] = {
    "posterior": posteriors.POSTERIORS,
    "prior": priors.PRIORS,
    "objective": objectives.OBJECTIVES,
    "gradient": objectives.GRADIENTS,
    "likelihood": likelihoods.LIKELIHOODS,
    "network": networks.NETWORKS,
}


@dataclass(frozen=True)
class Components:
    """The options of a VAE; `build.VAE` builds it."""

    # The defaults together are the VAE of arXiv:1312.6114.
    latent_dim: Annotated[int, AtLeast(1)] = 10
    """Number of latent dimensions (of latent variables, where each is a category)."""
    network: networks.Network = field(default_factory=networks.MLP)
    """Encoder and decoder."""
    likelihood: likelihoods.PixelLikelihood = field(default_factory=likelihoods.Bernoulli)
    """Distribution of pixels given the code."""
    prior: priors.Prior = field(default_factory=priors.Normal)
    """Distribution of codes."""
    objective: objectives.Objective = field(default_factory=objectives.Elbo)
    """What is minimized."""
    # Sums over thousands of pixels lose their digits in bfloat16, hence what stays float32.
    precision: Literal["float32", "bfloat16"] = "float32"
    """Compute type of the networks. Parameters, likelihoods and KL stay float32."""
    posterior: posteriors.Posterior = field(default_factory=posteriors.Diagonal)
    """Distribution of codes given an image."""
    gradient: objectives.Pathwise = field(default_factory=objectives.Pathwise)
    """Estimator of the gradient through the posterior sample."""
    condition: Condition = field(default_factory=Condition)
    """What the model is conditioned on besides the image."""
    # Without it an observed 0 and a missing entry look the same to the encoder.
    mask_input: bool = False
    """Of data with missing values: the encoder also sees which entries are observed; those that are not are 0."""

    def check(self) -> None:
        """Raises InputError for components that cannot work together."""
        # Each component against the number of dimensions; a prior sees that of z, which one-hot codes make longer.
        self.posterior.check(self.latent_dim)
        self.prior.check(self.posterior.code_dim(self.latent_dim))
        # In the order in which a fault is named: the prior first, as it follows from the posterior.
        kinds = ("prior", "posterior", "objective", "gradient", "likelihood", "network", "condition")
        needs.check({kind: getattr(self, kind) for kind in kinds}, REGISTRIES)
