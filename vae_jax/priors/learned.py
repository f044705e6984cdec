"""Gaussian priors with trained parameters: one Gaussian for all, or one a condition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from vae_jax.distributions import dense
from vae_jax.distributions.gaussian import DiagGaussian, of_outputs
from vae_jax.options.ranges import EACH_AT_LEAST_ONE
from vae_jax.priors.base import Links, Prior

# Log deviations of a network's outputs stay within +-LOG_STD_RANGE: exp(-2 x) and its square are then finite.
LOG_STD_RANGE = 10.0


@dataclass(frozen=True)
class LearnedNormal(Prior):
    """N(m, diag(s^2)) with trained m and s: the Gaussian nearest to the aggregate posterior (arXiv:1711.00464)."""

    factorized: ClassVar[bool] = True

    def init(self, key: jax.Array, links: Links) -> dict[str, Any]:
        del key
        # N(0, I) at the start. Logarithms keep the deviations positive.
        return {"mean": jnp.zeros(links.code_dim), "log_std": jnp.zeros(links.code_dim)}

    def distribution(self, params, state, links: Links) -> DiagGaussian:
        del state, links
        # Log variance = 2 log std; bounded, as trained parameters may stray.
        return of_outputs(params["mean"][None], 2.0 * params["log_std"][None])

    def sample(self, params, state, key, n: int, links: Links, temperature: float = 1.0) -> jax.Array:
        """Returns z ~ N(m, (temperature * s)^2), [n, D]."""
        p = self.distribution(params, state, links)
        std = temperature * jnp.exp(0.5 * p.log_var)
        return p.mean + std * jax.random.normal(key, (n, links.code_dim))


@dataclass(frozen=True)
class ConditionalNormal(Prior):
    """N(m(c), diag(s(c)^2)): mean and deviation from the condition by a small dense net (Sohn et al. 2015)."""

    hidden: Annotated[tuple[int, ...], EACH_AT_LEAST_ONE] = (64,)
    """Widths of the hidden layers of the net."""

    factorized: ClassVar[bool] = True
    conditional: ClassVar[bool] = True

    def init(self, key: jax.Array, links: Links) -> dict[str, Any]:
        assert links.cond is not None
        # F -> 2 D: mean and log deviation.
        return {"net": dense.init(key, (links.cond.shape[-1], *self.hidden, 2 * links.code_dim))}

    def distribution(self, params, state, links: Links) -> DiagGaussian:
        """Returns p(z|c) of each condition of `links.cond` [B, F]: N [B, D]."""
        del state
        assert links.cond is not None
        # [B, D] each: one density per example, against which its own q(z|x, c) is scored.
        mean, raw = jnp.split(dense.apply(params["net"], links.cond), 2, axis=-1)
        return DiagGaussian(mean, 2.0 * LOG_STD_RANGE * jnp.tanh(raw / LOG_STD_RANGE))

    def sample(self, params, state, key, n: int, links: Links, temperature: float = 1.0) -> jax.Array:
        """Returns z ~ p(z|c), [n, D], for the conditions in turn."""
        p = self.distribution(params, state, links)
        # n may exceed the number of conditions: they are used in turn.
        row = jnp.arange(n) % p.mean.shape[0]
        noise = jax.random.normal(key, (n, links.code_dim))
        return p.mean[row] + temperature * jnp.exp(0.5 * p.log_var[row]) * noise
