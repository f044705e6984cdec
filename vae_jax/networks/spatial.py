"""Convolutional encoders and decoders whose code is a grid of vectors, one per square of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from vae_jax.errors import InputError, option
from vae_jax.networks.base import ACTIVATIONS, Activation, Network
from vae_jax.networks.conv import Norm, _norm, stage_sizes
from vae_jax.networks.convolution import Conv, ConvTranspose
from vae_jax.options.ranges import AtLeast
from vae_jax.spec import ArraySpec


@dataclass(frozen=True)
class SpatialNetwork(Network):
    """Base of the networks with a grid for a code: encoder x [B, H, W, C] -> [B, h, w, n], decoder back."""

    spatial: ClassVar[bool] = True


def check_halvings(stages: int, shape: tuple[int, ...], name: str, what: str) -> None:
    """Checks that something can be halved so often.

    Args:
      stages: how often.
      shape: of it, [h, w, ...].
      name: option that says how often.
      what: it is.

    Raises:
      InputError: less than one row or column would be left.
    """
    least = min(shape[:2])
    if 2**stages <= least:
        return
    most, size = least.bit_length() - 1, f"{shape[0]}x{shape[1]}"
    fix = f"use {option(name, most)} or less" if most else "use larger images, or fewer stages of the network"
    raise InputError(f"{name}: {stages} halvings leave nothing of {what} of {size}; {fix}")


class ResidualStack(nn.Module):
    """Blocks x + conv1x1(act(conv3x3(act(x)))), then the activation."""

    blocks: int
    hidden: int
    activation: str
    norm: Norm
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        act = ACTIVATIONS[self.activation]
        for i in range(self.blocks):
            h = act(_norm(x, self.norm, f"norm_{i}a"))
            h = Conv(self.hidden, kernel=3, stride=1, dtype=self.dtype, name=f"conv_{i}a")(h)
            h = act(_norm(h, self.norm, f"norm_{i}b"))
            x = x + Conv(x.shape[-1], kernel=1, stride=1, dtype=self.dtype, name=f"conv_{i}b")(h)
        return act(x)


class ResidualEncoder(nn.Module):
    """Stages that halve the image, residual blocks, and a 1x1 convolution: [B, H, W, C] -> [B, h, w, outputs]."""

    config: ResidualConv
    outputs: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        c, act = self.config, ACTIVATIONS[self.config.activation]
        x = x.astype(self.dtype)
        for i in range(c.stages):
            # Half the width in all stages but the last, as in the reference (sonnet's example).
            width = c.hidden if i == c.stages - 1 else c.hidden // 2
            x = act(Conv(width, kernel=4, stride=2, dtype=self.dtype, name=f"down_{i}")(x))
        x = Conv(c.hidden, kernel=3, stride=1, dtype=self.dtype, name="conv")(x)
        x = ResidualStack(c.blocks, c.block_hidden, c.activation, c.norm, self.dtype, name="blocks")(x)
        return Conv(self.outputs, kernel=1, stride=1, dtype=self.dtype, name="out")(x)


class ResidualDecoder(nn.Module):
    """A 3x3 convolution, residual blocks, and stages that double: [B, h, w, D] -> [B, *out_shape]."""

    config: ResidualConv
    out_shape: tuple[int, ...]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, z):
        c, act = self.config, ACTIVATIONS[self.config.activation]
        sizes = stage_sizes(self.out_shape, c.stages)
        x = Conv(c.hidden, kernel=3, stride=1, dtype=self.dtype, name="conv")(z.astype(self.dtype))
        x = ResidualStack(c.blocks, c.block_hidden, c.activation, c.norm, self.dtype, name="blocks")(x)
        for i, (height, width) in enumerate(sizes[:-1][::-1]):
            last = i == c.stages - 1
            features = self.out_shape[-1] if last else c.hidden // 2
            x = ConvTranspose(features, kernel=4, stride=2, dtype=self.dtype, name=f"up_{i}")(x)[:, :height, :width]
            x = x if last else act(x)
        return x


@dataclass(frozen=True)
class ResidualConv(SpatialNetwork):
    """The VQ-VAE net: 4x4 stride-2 convolutions and residual blocks at the coarse scale (arXiv:1711.00937, sec. 4.1).

    With 2 stages one vector stands for 4x4 pixels (f4), with 3 for 8x8 (f8). An odd size comes back exactly.
    """

    hidden: Annotated[int, AtLeast(2)] = 128
    """Channels at the coarse scale; half of them before."""
    stages: Annotated[int, AtLeast(1)] = 2
    """How many times the image is halved."""
    blocks: Annotated[int, AtLeast(0)] = 2
    """Residual blocks on either side."""
    block_hidden: Annotated[int, AtLeast(1)] = 32
    """Channels inside a residual block."""
    activation: Activation = "relu"
    """Activation."""
    norm: Norm = "none"
    """Normalization inside the residual blocks: none, or group norm (8 groups)."""

    def check(self, x: ArraySpec) -> None:
        super().check(x)
        check_halvings(self.stages, x.shape, "model.network.stages", "images")

    def grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        return stage_sizes(shape, self.stages)[-1]

    def encoder(self, outputs: int, dtype: jnp.dtype) -> nn.Module:
        return ResidualEncoder(self, outputs, dtype)

    def decoder(self, out_shape: tuple[int, ...], dtype: jnp.dtype) -> nn.Module:
        return ResidualDecoder(self, out_shape, dtype)
