"""The autoregressive transformer: every code from the codes before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from vae_jax.models.stage2.base import Around
from vae_jax.models.stage2.sequential import Sequential
from vae_jax.models.stage2.tokens import Tokens


@dataclass(frozen=True)
class Transformer(Tokens, Sequential):
    """Causal transformer over the codes, in raster order (arXiv:2012.09841); keys and values are kept in sampling."""

    causal: ClassVar[bool] = True

    def logits(
        self, params: Any, keys: jax.Array | None, z: jax.Array, cond: jax.Array | None, around: Around
    ) -> jax.Array:
        # One pass over [B, n]: the true codes are the input at all places, shifted by one.
        return jnp.asarray(self.module(around).apply({"params": params}, z, cond, keys=keys))

    def start(self, params: Any, n: int, cond: jax.Array | None, around: Around) -> Any:
        # The condition is added to each token in `step`, so that the cache need not hold it.
        del cond
        return self.module(around).apply({"params": params}, n, method="cache")

    def step(
        self, params: Any, carry: Any, code: jax.Array, place: jax.Array, cond: jax.Array | None, around: Around
    ) -> tuple[Any, jax.Array]:
        # Cost grows as n for each place with a cache; a full pass for each would grow as n^2.
        module = self.module(around)
        carry, logits = module.apply({"params": params}, code, place, cond, carry, method="step")
        return carry, jnp.asarray(logits)
