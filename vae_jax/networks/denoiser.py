"""Networks of generators of real latents: (noisy latents, time, condition) -> an output of their shape."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from vae_jax.networks.convolution import Conv
from vae_jax.networks.dropout import dropout

# Angular frequencies of the time embedding, from an eighth of a turn per unit to 16 turns.
_FREQUENCIES = tuple(2.0 * math.pi * 2.0**k for k in range(-3, 5))


class Embedding(nn.Module):
    """Vector of (time [B], cond [B, F]) -> [B, width]; a row of zeros in `cond` adds nothing, like no condition."""

    width: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, time, cond=None):
        # Angles in float32: 16 turns have no digits left for a phase in bfloat16.
        angles = time.astype(jnp.float32)[:, None] * jnp.asarray(_FREQUENCIES)[None]
        waves = jnp.concatenate([time.astype(jnp.float32)[:, None], jnp.sin(angles), jnp.cos(angles)], -1)
        h = nn.Dense(self.width, dtype=self.dtype, name="time")(waves)
        if cond is not None:
            h = h + nn.Dense(self.width, use_bias=False, dtype=self.dtype, name="cond")(cond)
        return nn.silu(nn.Dense(self.width, dtype=self.dtype, name="hidden")(nn.silu(h)))


class Denoiser(nn.Module):
    """Residual network with adaptive norms: x [B, n], time [B], cond [B, F] or None -> float32 [B, n].

    Blocks x + gate * layer(silu(layer(norm(x) (1 + scale) + shift))) with scale, shift and gate from the embedding
    (arXiv:2212.09748, adaLN-Zero). Layers are dense, or 3x3 convolutions where `shape` has three axes (a grid). Gates
    and outputs start at zero. `keys` [B] drop hidden units out.
    """

    shape: tuple[int, ...]
    width: int
    blocks: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array, cond: jax.Array | None = None, keys: jax.Array | None = None):
        embedding = Embedding(self.width, self.dtype, name="embedding")(time, cond)
        h = self._layer(self.width, "in")(x.reshape(x.shape[0], *self.shape).astype(self.dtype))
        for i in range(self.blocks):
            scale, shift, gate = self._modulation(embedding, 3, f"modulation_{i}")
            inner = self._layer(self.width, f"layer_{i}a")(_norm(h) * (1 + scale) + shift)
            inner = dropout(nn.silu(inner), keys, f"layer_{i}", self.dropout)
            h = h + gate * self._layer(self.width, f"layer_{i}b")(inner)
        scale, shift = self._modulation(embedding, 2, "modulation_out")
        out = self._layer(self.shape[-1], "out", zero=True)(_norm(h) * (1 + scale) + shift)
        return out.astype(jnp.float32).reshape(x.shape)

    def _layer(self, features: int, name: str, zero: bool = False) -> nn.Module:
        kernel_init = nn.initializers.zeros_init() if zero else nn.initializers.lecun_normal()
        if len(self.shape) == 3:
            return Conv(features, kernel=3, dtype=self.dtype, kernel_init=kernel_init, name=name)
        return nn.Dense(features, dtype=self.dtype, kernel_init=kernel_init, name=name)

    def _modulation(self, embedding: jax.Array, parts: int, name: str) -> list[jax.Array]:
        """Returns factors and shifts [B, 1 .., width] that are zero at the start."""
        zeros = nn.initializers.zeros_init()
        out = nn.Dense(parts * self.width, kernel_init=zeros, dtype=self.dtype, name=name)(embedding)
        return jnp.split(out.reshape(out.shape[0], *(1,) * (len(self.shape) - 1), -1), parts, axis=-1)


def _norm(x: jax.Array) -> jax.Array:
    """Returns x at mean 0 and variance 1 over its channels; statistics in float32."""
    wide = x.astype(jnp.float32)
    centered = wide - wide.mean(-1, keepdims=True)
    return (centered * jax.lax.rsqrt(jnp.square(centered).mean(-1, keepdims=True) + 1e-6)).astype(x.dtype)
