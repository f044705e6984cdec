"""The VampPrior: a mixture of the posteriors of trained pseudo-inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from vae_jax.distributions.gaussian import DiagGaussian
from vae_jax.distributions.mixture import AggregatePosterior, GaussianMixture
from vae_jax.options.ranges import AtLeast, Between
from vae_jax.priors.base import Links, Prior


@dataclass(frozen=True)
class Vamp(Prior):
    """VampPrior: 1/K sum_k q(z|u_k), K pseudo-inputs u_k trained in image space (arXiv:1705.07120).

    u = sigmoid(v), v trained: u stays inside (0, 1) and keeps a gradient, where the clipping of the paper's code has
    none outside.
    """

    pseudo_inputs: Annotated[int, AtLeast(1)] = 500
    """Number of pseudo-inputs, K."""
    level: Annotated[float, Between(0, 1, "()")] = 0.2
    """Gray level about which the pseudo-inputs start, in (0, 1)."""

    encodes: ClassVar[bool] = True
    reads_density: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]] = ("image",)

    def init(self, key: jax.Array, links: Links) -> dict[str, Any]:
        # Noise tells the components apart: equal ones would get equal gradients and stay equal.
        noise = jax.random.normal(key, (self.pseudo_inputs, *links.x_shape))
        return {"logits": math.log(self.level / (1.0 - self.level)) + noise}

    def images(self, params: Any) -> jax.Array:
        """Returns the pseudo-inputs u [K, H, W, C], in [0, 1]."""
        return jax.nn.sigmoid(params["logits"])

    def distribution(self, params, state, links: Links) -> GaussianMixture | AggregatePosterior:
        del state
        # [K, D]: one batch of K pseudo-inputs through the encoder in each step, which trains both.
        q = links.posterior(self.images(params))
        # The density of a Gaussian mixture takes [B, K] memory; the general form maps over z and calls q's own density.
        if isinstance(q, DiagGaussian):
            weights = jnp.full(self.pseudo_inputs, -math.log(self.pseudo_inputs))
            return GaussianMixture(weights, q.mean, q.log_var)
        return AggregatePosterior(q, self.pseudo_inputs)

    def sample(self, params, state, key, n: int, links: Links, temperature: float = 1.0) -> jax.Array:
        """Returns z ~ q(z|u_k) with k uniform, [n, D]; `temperature` scales the distance from the mode of q(z|u_k)."""
        del state
        # Only the n pseudo-inputs that were drawn are encoded.
        pick, noise = jax.random.split(key)
        k = jax.random.randint(pick, (n,), 0, self.pseudo_inputs)
        q = links.posterior(self.images(params)[k])
        mode = q.mode()
        return mode + temperature * (q.sample(jax.random.split(noise, n)) - mode)
