"""Vision transformers whose code is a grid of vectors, one per patch of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp

from vae_jax.errors import InputError, option
from vae_jax.networks.spatial import SpatialNetwork
from vae_jax.networks.transformer import Block, check_heads, fitting
from vae_jax.options.ranges import AtLeast
from vae_jax.spec import ArraySpec


class Patches(nn.Module):
    """Blocks over the tokens of a grid with learned positions, [B, h, w, n] -> [B, h, w, outputs]."""

    config: ViT
    outputs: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        c, (batch, h, w, _) = self.config, x.shape
        tokens = nn.Dense(c.width, dtype=self.dtype, name="in")(x.astype(self.dtype)).reshape(batch, h * w, c.width)
        # Attention alone does not know where a patch is.
        position = self.param("position", nn.initializers.normal(0.02), (h * w, c.width))
        tokens = tokens + position[None].astype(self.dtype)
        for i in range(c.depth):
            # All patches in sight, no dropout.
            tokens = Block(c.width, c.heads, c.depth, 0.0, False, self.dtype, c.mlp, name=f"block_{i}")(tokens)
        tokens = nn.LayerNorm(dtype=self.dtype, name="norm")(tokens)
        return nn.Dense(self.outputs, dtype=self.dtype, name="out")(tokens).reshape(batch, h, w, self.outputs)


class Encoder(nn.Module):
    """Patches as tokens, and the blocks: [B, H, W, C] -> [B, H / p, W / p, outputs]."""

    config: ViT
    outputs: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        batch, height, width, channels = x.shape
        p = self.config.patch
        # [B, h, p, w, p, C] to [B, h, w, p p C].
        x = x.reshape(batch, height // p, p, width // p, p, channels).swapaxes(2, 3)
        x = x.reshape(batch, height // p, width // p, p * p * channels)
        return Patches(self.config, self.outputs, self.dtype, name="patches")(x)


class Decoder(nn.Module):
    """The blocks, and each token as the pixels of its patch: [B, h, w, D] -> [B, *out_shape]."""

    config: ViT
    out_shape: tuple[int, ...]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, z):
        (height, width, channels), p = self.out_shape, self.config.patch
        x = Patches(self.config, p * p * channels, self.dtype, name="patches")(z)
        x = x.reshape(z.shape[0], height // p, width // p, p, p, channels).swapaxes(2, 3)
        return x.reshape(z.shape[0], height, width, channels)


@dataclass(frozen=True)
class ViT(SpatialNetwork):
    """Vision transformer over patches, its decoder a mirror of its encoder (ViT-VQGAN, arXiv:2110.04627)."""

    patch: Annotated[int, AtLeast(1)] = 4
    """Side of a patch in pixels, which divides both sides of the image; one vector of the code stands for it."""
    width: Annotated[int, AtLeast(1)] = 256
    """Length of a token."""
    depth: Annotated[int, AtLeast(1)] = 4
    """Blocks of the encoder, and of the decoder."""
    heads: Annotated[int, AtLeast(1)] = 4
    """Heads of attention, which divide the width."""
    mlp: Annotated[int, AtLeast(1)] = 4
    """Width of the hidden layer of a block over that of a token."""

    def check(self, x: ArraySpec) -> None:
        super().check(x)
        height, width, _ = x.shape
        if height % self.patch or width % self.patch:
            raise InputError(
                f"model.network.patch: patches of {self.patch}x{self.patch} do not divide images of {height}x{width}; "
                f"use {option('model.network.patch', fitting(self.patch, height, width))}"
            )
        check_heads(self.heads, self.width, "model.network.heads")

    def grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        return shape[0] // self.patch, shape[1] // self.patch

    def encoder(self, outputs: int, dtype: jnp.dtype) -> nn.Module:
        return Encoder(self, outputs, dtype)

    def decoder(self, out_shape: tuple[int, ...], dtype: jnp.dtype) -> nn.Module:
        return Decoder(self, out_shape, dtype)
