"""Finite scalar quantization: each coordinate is bounded and rounded; the codebook is implicit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.distributions.concrete import straight_through
from vae_jax.model import Context
from vae_jax.options.ranges import AtLeast, Each
from vae_jax.quantizers import projection
from vae_jax.quantizers.base import Quantized, Quantizer, last, square
from vae_jax.quantizers.mixed_radix import digits, number

# Levels that give about 2^8 .. 2^16 codes: arXiv:2309.15505, table 1; odd powers by its rule of five or more each.
LEVELS = {
    "2^8": (8, 6, 5),
    "2^9": (8, 8, 8),
    "2^10": (8, 5, 5, 5),
    "2^11": (8, 8, 6, 5),
    "2^12": (7, 5, 5, 5, 5),
    "2^13": (8, 8, 5, 5, 5),
    "2^14": (8, 8, 8, 6, 5),
    "2^15": (8, 8, 8, 8, 8),
    "2^16": (8, 8, 8, 5, 5, 5),
}
_MARGIN = 1e-3  # a bounded value overshoots its outermost level by this share of half the range


@dataclass(frozen=True)
class FSQ(Quantizer):
    """FSQ: q_j = round(bound(z_j)), L_j levels for coordinate j (arXiv:2309.15505).

        bound(z) = h tanh(z + s) - o,   h = (L - 1) (1 + 0.001) / 2,   o = 1/2 for even L else 0,   s = artanh(o / h)

    The shift s makes 0 the middle of a level. With L = 2 it would move 0 to the end of the range, out of which no
    gradient leads, so that there s = 0: the sign decides. There is no codebook, no commitment and no collapse.
    """

    levels: Annotated[tuple[int, ...], Each(AtLeast(2), "a list of one or more numbers of 2 or more", some=True)] = (
        8,
        5,
        5,
        5,
    )
    """Levels of each coordinate; their product is the number of codes. Vectors of another length are projected."""

    @property
    def sizes(self) -> tuple[int, ...]:
        return (math.prod(self.levels),)

    def init(self, key: jax.Array, features: int) -> dict[str, Any]:
        return projection.init(key, features, len(self.levels))

    def bound(self, z: jax.Array) -> jax.Array:
        """Returns z [..., n] inside the range of the levels: rounded, it is one of -(L // 2) .. (L - 1) // 2."""
        levels = np.asarray(self.levels)
        # Constants of numpy in float64, rounded once: an even L needs o / h to be exact.
        half = (levels - 1) * (1 + _MARGIN) / 2
        offset = np.where(levels % 2 == 0, 0.5, 0.0)
        shift = np.where(levels > 2, np.arctanh(offset / np.maximum(half, 0.6)), 0.0)
        half, offset, shift = (last(np.float32(x), z) for x in (half, offset, shift))
        return jnp.tanh(z.astype(jnp.float32) + shift) * half - offset

    def quantize(
        self, params: Any, state: Any, z: jax.Array, *, key: jax.Array | None = None, ctx: Context | None = None
    ) -> Quantized:
        del key, ctx
        # One coordinate per entry of `levels`: bounded, at the nearest level, and scaled to [-1, 1].
        # No state and no cost: there is nothing that could collapse.
        bounded = self.bound(projection.into(params, z))
        level = jnp.round(jax.lax.stop_gradient(bounded))
        half = last(self._half, bounded)
        out = projection.out(params, straight_through(level, bounded) / half)
        error = square(jax.lax.stop_gradient(bounded - level) / half)
        return Quantized(out, self._index(level)[..., None], jnp.zeros(error.shape), {}, error[..., None], state)

    def embed(self, params: Any, state: Any, indices: jax.Array) -> jax.Array:
        del state
        return projection.out(params, self.code(indices[..., 0]))

    def code(self, index: jax.Array) -> jax.Array:
        """Returns the code of an index, int32 [...] -> float32 [..., n] in [-1, 1]."""
        digit = digits(index, self.levels)
        return (digit - last(np.asarray(self.levels) // 2, digit)) / last(self._half, digit)

    def _index(self, level: jax.Array) -> jax.Array:
        # Levels are whole numbers about 0; digits count from 0.
        return number(level.astype(jnp.int32) + last(np.asarray(self.levels, np.int32) // 2, level), self.levels)

    @property
    def _half(self) -> np.ndarray:
        return np.asarray([n // 2 for n in self.levels], np.float32)
