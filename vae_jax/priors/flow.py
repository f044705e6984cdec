"""Flow priors: N(0, I) behind a trained invertible map, with exact density and samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from vae_jax.distributions import coupling, flows, made
from vae_jax.distributions.gaussian import DiagGaussian
from vae_jax.errors import InputError, option
from vae_jax.options.ranges import EACH_AT_LEAST_ONE, AtLeast
from vae_jax.priors.base import Links, Prior


@dataclass(frozen=True)
class FlowPrior(Prior):
    """Normalizing flow of N(0, I): RealNVP (arXiv:1605.08803) or masked autoregressive (arXiv:1705.07057).

    Both start near the identity. The density of either costs one pass per layer; a draw costs as much for realnvp,
    and one pass per layer and dimension for maf.
    """

    family: Literal["realnvp", "maf"] = "realnvp"
    """Affine coupling layers, or autoregressive ones."""
    layers: Annotated[int, AtLeast(1)] = 6
    """Layers of the flow; realnvp needs 2 to move every dimension."""
    hidden: Annotated[tuple[int, ...], EACH_AT_LEAST_ONE] = (128,)
    """Widths of the hidden layers of each net."""

    def check(self, code_dim: int) -> None:
        # One dimension has no other half, and would never be moved.
        if self.family == "realnvp" and code_dim < 2:
            raise InputError(
                f"model.latent_dim: {code_dim} is too few for the flow prior, whose realnvp layers move one half given "
                f"the other; use 2 or more, or {option('model.prior.family', 'maf')}"
            )

    def init(self, key: jax.Array, links: Links) -> dict[str, Any]:
        if self.family == "realnvp":
            return coupling.init(key, links.code_dim, 0, self.layers, self.hidden)
        keys = jax.random.split(key, self.layers)
        return {f"layer{i}": made.init(keys[i], links.code_dim, 0, self.hidden) for i in range(self.layers)}

    def distribution(self, params, state, links: Links) -> flows.Flow:
        del state
        # [1, D], broadcast over the batch.
        base = DiagGaussian(jnp.zeros((1, links.code_dim)), jnp.zeros((1, links.code_dim)))
        # log p(z) goes through the inverse map, which is the cheap direction of both families.
        if self.family == "maf":
            return flows.Flow(base, Partial(made.maf_forward, params), Partial(made.maf_inverse, params))
        return flows.Flow(base, Partial(coupling.forward, params, None), Partial(coupling.inverse, params, None))

    def sample(self, params, state, key, n: int, links: Links, temperature: float = 1.0) -> jax.Array:
        """Returns z = f(temperature * eps), eps ~ N(0, I), [n, D]."""
        # The temperature acts on the base: draws move toward the image of its mean.
        noise = temperature * jax.random.normal(key, (n, links.code_dim))
        return self.distribution(params, state, links).forward(noise)[0]
