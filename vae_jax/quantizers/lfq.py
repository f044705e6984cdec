"""Lookup-free quantization: the signs of the coordinates are the code."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.distributions.concrete import straight_through
from vae_jax.model import Context
from vae_jax.options.ranges import AtLeast, NotNegative, Positive
from vae_jax.quantizers import projection
from vae_jax.quantizers.base import Quantized, Quantizer, last, square, unit
from vae_jax.quantizers.entropy import gap


@dataclass(frozen=True)
class LFQ(Quantizer):
    """LFQ: q_j = sign(z_j), 2^bits codes without a codebook (MAGVIT-v2, arXiv:2310.05737).

        cost = commitment |z - sg(q)|^2 + entropy (E[H(c|z)] - diversity H(c))

    with p(c|z) = softmax_c(2 <z, c> / temperature).

    The bits of p(c|z) are independent, so that its entropy is a sum over bits. That of the mean over the batch is not:
    it is taken exactly within groups of up to `joint` bits and added up over groups, with no table of all codes.
    """

    bits: Annotated[int, AtLeast(1)] = 10
    """Bits of a code; vectors of another length are projected."""
    commitment: Annotated[float, NotNegative()] = 0.25
    """Weight of |z - sg(q)|^2."""
    entropy: Annotated[float, NotNegative()] = 0.1
    """Weight of the entropies, in nats per vector; 0 for none."""
    diversity: Annotated[float, NotNegative()] = 1.0
    """Weight of the entropy over the batch against that of each choice."""
    temperature: Annotated[float, Positive()] = 0.01
    """Temperature of p(c|z)."""
    joint: Annotated[int, AtLeast(1)] = 9
    """Bits whose joint entropy over the batch is exact; 2^joint probabilities per vector are held."""

    spherical: ClassVar[bool] = False

    @property
    def sizes(self) -> tuple[int, ...]:
        return (2**self.bits,)

    @property
    def scale(self) -> float:
        """Absolute value of each coordinate of a code."""
        return 1 / math.sqrt(self.bits) if self.spherical else 1.0

    def init(self, key: jax.Array, features: int) -> dict[str, Any]:
        return projection.init(key, features, self.bits)

    def quantize(
        self, params: Any, state: Any, z: jax.Array, *, key: jax.Array | None = None, ctx: Context | None = None
    ) -> Quantized:
        del key
        # 1. One coordinate per bit; of BSQ on the unit sphere, as its codes are.
        inner = projection.into(params, z)
        if self.spherical:
            inner = unit(inner)
        # 2. The sign; 0 counts as negative, as in the index.
        positive = jax.lax.stop_gradient(inner) > 0
        q = jnp.where(positive, self.scale, -self.scale)
        terms = {"commitment": square(inner - q)}
        cost = self.commitment * terms["commitment"]
        if self.entropy:
            terms["entropy"] = self._entropy(inner, ctx)
            cost += self.entropy * terms["entropy"]
        # 3. Bits to an index, int32.
        index = jnp.sum(jnp.where(positive, last(self._places, positive), 0), -1, dtype=jnp.int32)
        out = projection.out(params, straight_through(q, inner))
        return Quantized(out, index[..., None], cost, terms, square(inner - q)[..., None], state)

    def _entropy(self, z: jax.Array, ctx: Context | None) -> jax.Array:
        """Returns E[H(c|z)] - diversity H(c), summed over the groups of bits, [...]."""
        # A table of 2^joint codes per group, in place of one of 2^bits.
        parts = []
        for start in range(0, self.bits, self.joint):
            group = z[..., start : start + self.joint]
            signs = self.scale * _signs(group.shape[-1])
            parts.append(gap(jax.nn.softmax(2 * group @ signs.T / self.temperature, -1), ctx, self.diversity))
        return sum(parts[1:], parts[0])

    def embed(self, params: Any, state: Any, indices: jax.Array) -> jax.Array:
        del state
        return projection.out(params, self.code(indices[..., 0]))

    # The codebook is never made: an index is read bit by bit.

    def code(self, index: jax.Array) -> jax.Array:
        """Returns the code of an index, int32 [...] -> float32 [..., bits]."""
        each = index[..., None]
        return jnp.where(each & last(self._places, each), self.scale, -self.scale)

    @property
    def _places(self) -> np.ndarray:
        """The value of each bit, int32: the first coordinate is the highest bit."""
        return (2 ** np.arange(self.bits - 1, -1, -1)).astype(np.int32)


def _signs(bits: int) -> np.ndarray:
    """Returns all codes of a few bits, -1 and 1, float32 [2^bits, bits]."""
    # In the order of their indices, as `code` reads them.
    places = 2 ** np.arange(bits - 1, -1, -1)
    return np.where(np.arange(2**bits)[:, None] & places, 1, -1).astype(np.float32)


@dataclass(frozen=True)
class BSQ(LFQ):
    """BSQ: the vector on the unit sphere, each coordinate to sign(z_j) / sqrt(bits) (arXiv:2406.07548)."""

    spherical: ClassVar[bool] = True
