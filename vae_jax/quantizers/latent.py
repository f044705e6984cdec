"""Latent quantization: every coordinate has a few values of its own, which are learned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.distributions.concrete import straight_through
from vae_jax.model import Context
from vae_jax.options.ranges import AtLeast, Each, NotNegative
from vae_jax.quantizers import projection
from vae_jax.quantizers.base import Quantized, Quantizer, last, square
from vae_jax.quantizers.mixed_radix import digits, number


@dataclass(frozen=True)
class Latent(Quantizer):
    """QLAE: q_j = argmin_v in V_j |z_j - v|, a learned scalar codebook V_j for each coordinate (arXiv:2305.18378).

    cost = codebook |sg(z) - q|^2 + commitment |z - sg(q)|^2
    """

    levels: Annotated[tuple[int, ...], Each(AtLeast(2), "a list of one or more numbers of 2 or more", some=True)] = (
        10,
    ) * 4
    """Values of each coordinate; their product is the number of codes. Vectors of another length are projected."""
    codebook: Annotated[float, NotNegative()] = 0.01
    """Weight of |sg(z) - q|^2, which moves the values."""
    commitment: Annotated[float, NotNegative()] = 0.01
    """Weight of |z - sg(q)|^2, which moves the encoder."""

    @property
    def sizes(self) -> tuple[int, ...]:
        return (math.prod(self.levels),)

    def init(self, key: jax.Array, features: int) -> dict[str, Any]:
        # All coordinates in one table, each as long as the longest: what is beyond its own values is never read.
        values = np.zeros((len(self.levels), max(self.levels)), np.float32)
        for row, count in zip(values, self.levels, strict=True):
            row[:count] = np.linspace(-0.5, 0.5, count)
        return projection.init(key, features, len(self.levels)) | {"values": jnp.asarray(values)}

    def quantize(
        self, params: Any, state: Any, z: jax.Array, *, key: jax.Array | None = None, ctx: Context | None = None
    ) -> Quantized:
        del key, ctx
        inner = projection.into(params, z)
        # Which entries of the table are beyond the values of a coordinate, [n, L].
        beyond = np.arange(max(self.levels)) >= np.asarray(self.levels)[:, None]
        # [..., n, L]: few enough to hold.
        lead = (1,) * (inner.ndim - 1)
        distance = jnp.abs(jax.lax.stop_gradient(inner)[..., None] - params["values"].reshape(*lead, *beyond.shape))
        digit = jnp.argmin(jnp.where(beyond.reshape(*lead, *beyond.shape), jnp.inf, distance), -1)
        # Each coordinate chooses for itself; the index joins their choices.
        q = self._values(params, digit)
        fixed = jax.lax.stop_gradient(q)
        terms = {"codebook": square(jax.lax.stop_gradient(inner) - q), "commitment": square(inner - fixed)}
        cost = self.codebook * terms["codebook"] + self.commitment * terms["commitment"]
        out = projection.out(params, straight_through(fixed, inner))
        index = number(digit, self.levels)
        return Quantized(out, index[..., None], cost, terms, square(inner - fixed)[..., None], state)

    def embed(self, params: Any, state: Any, indices: jax.Array) -> jax.Array:
        del state
        return projection.out(params, self._values(params, digits(indices[..., 0], self.levels)))

    def _values(self, params: Any, digit: jax.Array) -> jax.Array:
        """Returns the value that each coordinate's digit names, [..., n]."""
        # Coordinate j reads row j: two index arrays of one shape.
        return params["values"][last(np.arange(len(self.levels)), digit), digit]
