"""The delta-VAE's prior: an autoregressive process that no factorized posterior can match."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp

from vae_jax.distributions import ar1
from vae_jax.errors import InputError, option
from vae_jax.options.ranges import NotNegative
from vae_jax.priors.base import Links, Prior

# Least 1 - alpha^2: closer to 1, alpha loses its digits in float32.
LEAST_NOISE = 1e-4


@dataclass(frozen=True)
class DeltaAR1(Prior):
    """Committed rate: z_t = alpha z_(t-1) + noise, of variance 1; a diagonal q pays >= delta (arXiv:1901.03416).

    KL(q || p) >= 1/2 [ (D - 2) ln(1 + alpha^2) - ln(1 - alpha^2) ] for every diagonal Gaussian q, with equality at mean
    0 and variances 1 / L_tt, L the precision of p. Departs from the paper: its process runs over time or space, with an
    alpha for each channel; here over the dimensions of the one code.
    """

    delta: Annotated[float, NotNegative()] = 2.0
    """The least rate in nats; alpha follows from it and from the number of dimensions."""

    def unit(self) -> tuple[float, float]:
        # The process is stationary: every dimension has variance 1, whatever alpha.
        return 0.0, 1.0

    def check(self, code_dim: int) -> None:
        if code_dim < 2:
            raise InputError(
                f"model.latent_dim: {code_dim} is too few for the ar1 prior, which correlates dimensions; use 2 or more"
            )
        greatest = ar1.least_rate(LEAST_NOISE, code_dim)
        # `not <=` and not `>`: NaN is refused too.
        if not self.delta <= greatest:
            raise InputError(
                f"model.prior.delta: {self.delta:g} nats need an alpha too close to 1 with {code_dim} dimensions; use "
                f"at most {math.floor(greatest * 100) / 100:g}, or a larger {option('model.latent_dim')}"
            )

    def distribution(self, params, state, links: Links) -> ar1.AR1:
        del params, state
        # Solved in Python floats when the model is traced. 1 - alpha^2 is kept, as alpha near 1 loses its digits.
        return ar1.AR1(jnp.asarray(ar1.noise_of_rate(self.delta, links.code_dim), jnp.float32))

    def sample(self, params, state, key, n: int, links: Links, temperature: float = 1.0) -> jax.Array:
        """Returns temperature * z, z ~ p(z), [n, D]."""
        return temperature * self.distribution(params, state, links).sample(key, n, links.code_dim)
