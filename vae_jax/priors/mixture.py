"""A trained mixture of Gaussians."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from vae_jax import prng
from vae_jax.distributions.gaussian import of_outputs
from vae_jax.distributions.mixture import GaussianMixture
from vae_jax.options.ranges import AtLeast, Positive
from vae_jax.priors.base import Links, Prior


@dataclass(frozen=True)
class MixtureOfGaussians(Prior):
    """sum_k w_k N(m_k, diag(s_k^2)), all trained with the model: the MoG prior (arXiv:1705.07120, sec. 4.2)."""

    components: Annotated[int, AtLeast(1)] = 10
    """Number of Gaussians, K."""
    spread: Annotated[float, Positive()] = 0.5
    """Standard deviation of the means at the start; the components themselves start as unit Gaussians."""

    def init(self, key: jax.Array, links: Links) -> dict[str, Any]:
        shape = (self.components, links.code_dim)
        # Equal components would get equal gradients for ever: only the means tell them apart.
        mean = self.spread * jax.random.normal(prng.site_key(key, "mean"), shape)
        return {"logits": jnp.zeros(self.components), "mean": mean, "log_std": jnp.zeros(shape)}

    def distribution(self, params, state, links: Links) -> GaussianMixture:
        del state, links
        # Free logits: the softmax keeps the weights positive and of sum 1.
        return GaussianMixture(
            jax.nn.log_softmax(params["logits"]), *of_outputs(params["mean"], 2.0 * params["log_std"])
        )

    def sample(self, params, state, key, n: int, links: Links, temperature: float = 1.0) -> jax.Array:
        """Returns z [n, D]: a component each by its weight, then its Gaussian, `temperature` times its deviation."""
        return self.distribution(params, state, links).sample(key, n, temperature)
