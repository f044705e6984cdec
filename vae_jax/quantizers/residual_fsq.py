"""Residual FSQ: finite scalar quantization, refined level by level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.distributions.concrete import straight_through
from vae_jax.model import Context
from vae_jax.options.ranges import AtLeast
from vae_jax.quantizers import projection
from vae_jax.quantizers.base import Quantized, last, square
from vae_jax.quantizers.fsq import FSQ
from vae_jax.quantizers.mixed_radix import digits, number


@dataclass(frozen=True)
class ResidualFSQ(FSQ):
    """Residual FSQ: after the cells of FSQ, each level divides a cell into L equal parts and names the part.

    Level 0 is FSQ. The bounded vector lies within half a cell of its code, so that level l leaves at most half a cell
    divided by L^l in every coordinate: the error falls with every level.
    """

    depth: Annotated[int, AtLeast(1)] = 4
    """Number of levels."""

    @property
    def sizes(self) -> tuple[int, ...]:
        return super().sizes * self.depth

    def quantize(
        self, params: Any, state: Any, z: jax.Array, *, key: jax.Array | None = None, ctx: Context | None = None
    ) -> Quantized:
        del key, ctx
        bounded = self.bound(projection.into(params, z))
        fixed, levels = jax.lax.stop_gradient(bounded), last(np.asarray(self.levels, np.float32), bounded)
        half = last(self._half, bounded)
        # In units of a cell: what is left after rounding is in [-1/2, 1/2].
        total = jnp.round(fixed)
        indices, errors = [self._index(total)], [square((fixed - total) / half)]
        # Width of a part, in cells of FSQ: it shrinks by L with each level, in every coordinate.
        cell = 1.0
        for _ in range(1, self.depth):
            part = jnp.clip(jnp.floor(((fixed - total) / cell + 0.5) * levels), 0, levels - 1)
            total = total + cell * ((part + 0.5) / levels - 0.5)
            cell = cell / levels
            indices.append(number(part, self.levels))
            errors.append(square((fixed - total) / half))
        # As for FSQ, one estimate for all levels together.
        q = straight_through(total, bounded) / half
        cost, error = jnp.zeros(errors[0].shape), jnp.stack(errors, -1)
        return Quantized(projection.out(params, q), jnp.stack(indices, -1), cost, {}, error, state)

    def embed(self, params: Any, state: Any, indices: jax.Array) -> jax.Array:
        del state
        code = self.code(indices[..., 0])
        levels, half = last(np.asarray(self.levels, np.float32), code), last(self._half, code)
        total, cell = code * half, 1.0
        for i in range(1, indices.shape[-1]):
            total = total + cell * ((digits(indices[..., i], self.levels) + 0.5) / levels - 0.5)
            cell = cell / levels
        return projection.out(params, total / half)
