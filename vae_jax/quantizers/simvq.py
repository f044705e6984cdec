"""SimVQ: a codebook that moves as a whole."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from vae_jax import prng
from vae_jax.distributions.concrete import straight_through
from vae_jax.model import Context
from vae_jax.options.ranges import AtLeast, NotNegative
from vae_jax.quantizers import projection, shards
from vae_jax.quantizers.base import Quantized, Quantizer, square
from vae_jax.quantizers.vq import choose


@dataclass(frozen=True)
class SimVQ(Quantizer):
    """SimVQ: entries are the rows of C W, C frozen and random, W learned (arXiv:2411.02038).

        cost = |sg(z) - q|^2 + commitment |z - sg(q)|^2

    The gradient of every chosen entry moves W, and with it all entries: none is left behind. The straight-through
    estimator is the only one: with the rotation trick the commitment grows without bound.
    """

    codes: Annotated[int, AtLeast(2)] = 512
    """Number of entries of the codebook, K."""
    commitment: Annotated[float, NotNegative()] = 0.25
    """Weight of |z - sg(q)|^2, which holds the encoder to its entries."""

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.codes,)

    def init(self, key: jax.Array, features: int) -> dict[str, Any]:
        return {"map": projection.uniform(prng.site_key(key, "map"), features, features)}

    def init_state(self, key: jax.Array, features: int) -> dict[str, Any]:
        frozen = jax.random.normal(prng.site_key(key, "codebook"), (self.codes, features)) / math.sqrt(features)
        return {"frozen": frozen}

    def entries(self, params: Any, state: Any) -> jax.Array:
        """Returns the codebook [K, D], with the gradient of W."""
        # Full precision: on a GPU a rounded product would move every entry, and so the choice among them.
        return jnp.matmul(state["frozen"], params["map"], precision="highest")

    def embed(self, params: Any, state: Any, indices: jax.Array) -> jax.Array:
        return shards.take(self.entries(params, state), indices[..., 0])

    def quantize(
        self, params: Any, state: Any, z: jax.Array, *, key: jax.Array | None = None, ctx: Context | None = None
    ) -> Quantized:
        del key, ctx
        # Both terms are there at once: W has no other gradient, and the encoder must not run away from it.
        z = z.astype(jnp.float32)
        index, q, terms = choose(z, self.entries(params, state), learned=True)
        # The decoder's gradient is the encoder's; W moves by the codebook term alone.
        fixed = jax.lax.stop_gradient(q)
        cost = self.commitment * terms["commitment"] + terms["codebook"]
        return Quantized(straight_through(fixed, z), index[..., None], cost, terms, square(z - fixed)[..., None], state)
