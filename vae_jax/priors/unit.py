"""The beta prior over codes in (0, 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from vae_jax.distributions import unit
from vae_jax.options.ranges import Positive
from vae_jax.priors.base import Links, Prior
from vae_jax.spaces import Space, UnitInterval


@dataclass(frozen=True)
class Beta(Prior):
    """Independent beta codes; the default, Beta(1, 1), is the uniform distribution (arXiv:1605.06197)."""

    a: Annotated[float, Positive()] = 1.0
    """Exponent at 0, plus 1; under 1 the density piles up at 0."""
    b: Annotated[float, Positive()] = 1.0
    """Exponent at 1, plus 1."""

    space: ClassVar[type[Space]] = UnitInterval
    factorized: ClassVar[bool] = True

    def distribution(self, params: Any, state: Any, links: Links) -> unit.Beta:
        del params, state
        shape = (1, links.code_dim)
        return unit.Beta(jnp.full(shape, self.a, jnp.float32), jnp.full(shape, self.b, jnp.float32))

    def sample(self, params, state, key, n: int, links: Links, temperature: float = 1.0) -> jax.Array:
        """Returns z of the prior's mean and `temperature` times its standard deviation, [n, D]."""
        del params, state
        total = self.a + self.b
        # Var = mean (1 - mean) / (total + 1), whatever the total.
        # a and b by one factor: the mean a / (a + b) is unchanged. The factor that gives t^2 Var is negative where t^2
        # exceeds 1 + total, more than the interval allows; the floor stops there.
        sharper = jnp.maximum((total + 1.0) / jnp.square(jnp.maximum(temperature, 1e-3)) - 1.0, 1e-2) / total
        shape = (n, links.code_dim)
        p = unit.Beta(jnp.full(shape, self.a) * sharper, jnp.full(shape, self.b) * sharper)
        return p.sample(jax.random.split(key, n))
