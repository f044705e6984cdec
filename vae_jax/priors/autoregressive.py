"""The autoregressive Gaussian prior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from vae_jax.distributions import flows, made
from vae_jax.distributions.gaussian import DiagGaussian
from vae_jax.options.ranges import EACH_AT_LEAST_ONE
from vae_jax.priors.base import Links, Prior


@dataclass(frozen=True)
class Autoregressive(Prior):
    """Gaussian MADE: prod_i N(z_i; m_i(z_<i), s_i(z_<i)^2) (arXiv:1502.03509)."""

    hidden: Annotated[tuple[int, ...], EACH_AT_LEAST_ONE] = (128, 128)
    """Widths of the hidden layers."""

    def init(self, key: jax.Array, links: Links) -> dict[str, Any]:
        # No context (0): the net reads z alone.
        return {"layer0": made.init(key, links.code_dim, 0, self.hidden)}

    def distribution(self, params, state, links: Links) -> flows.Flow:
        """Returns p(z): a masked autoregressive flow of one layer is this density."""
        del state
        # [1, D], broadcast over the batch.
        base = DiagGaussian(jnp.zeros((1, links.code_dim)), jnp.zeros((1, links.code_dim)))
        return flows.Flow(base, Partial(made.maf_forward, params), Partial(made.maf_inverse, params))

    def sample(self, params, state, key, n: int, links: Links, temperature: float = 1.0) -> jax.Array:
        """Returns z_i ~ N(m_i(z_<i), (temperature * s_i(z_<i))^2) in turn, [n, D]."""
        # One pass gives the density; a draw takes D passes, as z_i must be known before z_(i+1).
        noise = temperature * jax.random.normal(key, (n, links.code_dim))
        return self.distribution(params, state, links).forward(noise)[0]
