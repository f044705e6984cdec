"""Convolutional encoders and their mirrored decoders.

Two families share the code: *strided* (halve with a stride-2 convolution) and *pooled* (convolve, then max pool).
Decoders double the size with a transposed convolution, or with nearest upsampling and a convolution, which cannot
leave checkerboards (Odena et al. 2016).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import flax.linen as nn
import jax.numpy as jnp

from vae_jax.errors import InputError, option
from vae_jax.networks.base import ACTIVATIONS, Activation, Network
from vae_jax.networks.convolution import Conv, ConvTranspose
from vae_jax.options.ranges import EACH_AT_LEAST_ONE, AtLeast, Each
from vae_jax.spec import ArraySpec

Norm = Literal["none", "group"]
Upsample = Literal["transpose", "nearest"]


def _norm(x, kind: Norm, name: str):
    if kind == "none":
        return x
    # Statistics in float32 whatever the compute type is.
    groups = math.gcd(8, x.shape[-1])
    return nn.GroupNorm(num_groups=groups, dtype=jnp.float32, name=name)(x.astype(jnp.float32)).astype(x.dtype)


class ConvEncoder(nn.Module):
    """Stages that halve the image, then dense layers: [B, H, W, C] -> [B, outputs]."""

    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    pool: bool
    dense: tuple[int, ...]
    outputs: int
    activation: str
    norm: Norm
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x):
        act = ACTIVATIONS[self.activation]
        x = x.astype(self.dtype)
        for i, (features, kernel) in enumerate(zip(self.channels, self.kernels, strict=True)):
            x = Conv(features, kernel=kernel, stride=1 if self.pool else 2, dtype=self.dtype, name=f"conv_{i}")(x)
            x = act(_norm(x, self.norm, f"norm_{i}"))
            if self.pool:
                x = nn.max_pool(x, (2, 2), strides=(2, 2), padding="SAME")
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate(self.dense):
            x = act(nn.Dense(width, dtype=self.dtype, name=f"dense_{i}")(x))
        return nn.Dense(self.outputs, dtype=self.dtype, name="out")(x)


class ConvDecoder(nn.Module):
    """Dense layers, then stages that double the image: [B, D] -> [B, *out_shape].

    Stage i ends at the size that the encoder had before its stage, so an odd size comes back exactly: the doubled
    image is cropped by the one row and column that the encoder's halving rounded up.
    """

    channels: tuple[int, ...]
    kernel: int
    dense: tuple[int, ...]
    out_shape: tuple[int, ...]
    activation: str
    norm: Norm
    upsample: Upsample
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, z):
        act = ACTIVATIONS[self.activation]
        sizes = stage_sizes(self.out_shape, len(self.channels))
        x = z.astype(self.dtype)
        for i, width in enumerate(self.dense[::-1]):
            x = act(nn.Dense(width, dtype=self.dtype, name=f"dense_{i}")(x))
        first = (*sizes[-1], self.channels[-1])
        x = act(nn.Dense(math.prod(first), dtype=self.dtype, name="dense_out")(x)).reshape(-1, *first)
        targets = (*self.channels[:-1][::-1], self.out_shape[-1])
        for i, (features, (height, width)) in enumerate(zip(targets, sizes[:-1][::-1], strict=True)):
            if self.upsample == "transpose":
                up = ConvTranspose(features, kernel=self.kernel, stride=2, dtype=self.dtype, name=f"up_{i}")
                x = up(x)[:, :height, :width]
            else:
                x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)[:, :height, :width]
                # A stride-1 kernel must be odd to stay centered.
                x = Conv(features, kernel=self.kernel | 1, stride=1, dtype=self.dtype, name=f"up_{i}")(x)
            if i < len(targets) - 1:
                x = act(_norm(x, self.norm, f"norm_{i}"))
        return x


def stage_sizes(image_shape: tuple[int, ...], stages: int) -> list[tuple[int, int]]:
    """Returns the (H, W) before each of the halvings and after the last one: `stages + 1` pairs, rounded up."""
    sizes = [(image_shape[0], image_shape[1])]
    for _ in range(stages):
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes


@dataclass(frozen=True)
class Conv64(Network):
    """The 64x64 net of the disentanglement literature: stride-2 convs 32-32-64-64, fc256 (arXiv:1811.12359, tab. 1)."""

    channels: Annotated[tuple[int, ...], Each(AtLeast(1), "a list of one or more sizes of 1 or more", some=True)] = (
        32,
        32,
        64,
        64,
    )
    """Channels of the stride-2 stages; the decoder has them in reverse."""
    kernels: Annotated[tuple[int, ...], EACH_AT_LEAST_ONE] = (4, 4, 2, 2)
    """Kernel size of each encoder stage."""
    up_kernel: Annotated[int, AtLeast(1)] = 4
    """Kernel size of every decoder stage (one more, if even, where upsampling is nearest)."""
    dense: Annotated[tuple[int, ...], EACH_AT_LEAST_ONE] = (256,)
    """Widths of the dense layers between the convolutions and the code."""
    activation: Activation = "relu"
    """Activation."""
    norm: Norm = "none"
    """Normalization after each convolution but the last: none, or group norm (8 groups)."""
    upsample: Upsample = "transpose"
    """How the decoder doubles: transposed convolution, or nearest upsampling + convolution."""

    def check(self, x: ArraySpec) -> None:
        super().check(x)
        multiple, (height, width) = 2 ** len(self.channels), x.shape[:2]
        if len(self.kernels) != len(self.channels):
            raise InputError(
                f"model.network.kernels: {len(self.kernels)} kernel sizes for {len(self.channels)} stages; one each"
            )
        if height % multiple or width % multiple:
            # Half of an odd side is no whole number, whatever the number of stages.
            most = (math.gcd(height, width) & -math.gcd(height, width)).bit_length() - 1
            names = f"{option('model.network.channels')} and as many {option('model.network.kernels')}"
            raise InputError(
                f"model.network: {len(self.channels)} stride-2 stages need a height and width that are multiples of "
                f"{multiple}, the images are {height}x{width}; use another network (mlp, pooled-conv)"
                + (f", or at most {most} {names}" if most else "")
            )

    def encoder(self, outputs: int, dtype: jnp.dtype) -> nn.Module:
        return ConvEncoder(self.channels, self.kernels, False, self.dense, outputs, self.activation, self.norm, dtype)

    def decoder(self, out_shape: tuple[int, ...], dtype: jnp.dtype) -> nn.Module:
        return ConvDecoder(
            self.channels, self.up_kernel, self.dense, out_shape, self.activation, self.norm, self.upsample, dtype
        )


@dataclass(frozen=True)
class DeepConv(Conv64):
    """Four wide stages 64-128-256-512 with group norm, for natural images and latents of 128 to 256."""

    channels: Annotated[tuple[int, ...], Each(AtLeast(1), "a list of one or more sizes of 1 or more", some=True)] = (
        64,
        128,
        256,
        512,
    )
    """Channels of the stride-2 stages; the decoder has them in reverse."""
    kernels: Annotated[tuple[int, ...], EACH_AT_LEAST_ONE] = (4, 4, 4, 4)
    """Kernel size of each encoder stage."""
    dense: Annotated[tuple[int, ...], EACH_AT_LEAST_ONE] = ()
    """Widths of the dense layers between the convolutions and the code."""
    activation: Activation = "leaky-relu"
    """Activation."""
    norm: Norm = "group"
    """Normalization after each convolution but the last: none, or group norm (8 groups)."""


@dataclass(frozen=True)
class PooledConv(Network):
    """3x3 convolutions with 2x2 max pooling, 32-64-128, then dense 512."""

    channels: Annotated[tuple[int, ...], Each(AtLeast(1), "a list of one or more sizes of 1 or more", some=True)] = (
        32,
        64,
        128,
    )
    """Channels of the stages; the decoder has them in reverse."""
    kernel: Annotated[int, AtLeast(1)] = 3
    """Kernel size of the encoder's convolutions."""
    up_kernel: Annotated[int, AtLeast(1)] = 4
    """Kernel size of every decoder stage (one more, if even, where upsampling is nearest)."""
    dense: Annotated[tuple[int, ...], EACH_AT_LEAST_ONE] = (512,)
    """Widths of the dense layers between the convolutions and the code."""
    activation: Activation = "relu"
    """Activation."""
    norm: Norm = "none"
    """Normalization after each convolution but the last: none, or group norm (8 groups)."""
    upsample: Upsample = "transpose"
    """How the decoder doubles: transposed convolution, or nearest upsampling + convolution."""

    def check(self, x: ArraySpec) -> None:
        super().check(x)
        smallest, (height, width) = 2 ** (len(self.channels) - 1) + 1, x.shape[:2]
        if min(height, width) < smallest:
            raise InputError(
                f"model.network: {len(self.channels)} pooling stages need images of at least {smallest}x{smallest}, "
                f"these are {height}x{width}; use fewer {option('model.network.channels')} "
                "or the mlp network"
            )

    def encoder(self, outputs: int, dtype: jnp.dtype) -> nn.Module:
        kernels = (self.kernel,) * len(self.channels)
        return ConvEncoder(self.channels, kernels, True, self.dense, outputs, self.activation, self.norm, dtype)

    def decoder(self, out_shape: tuple[int, ...], dtype: jnp.dtype) -> nn.Module:
        return ConvDecoder(
            self.channels, self.up_kernel, self.dense, out_shape, self.activation, self.norm, self.upsample, dtype
        )


@dataclass(frozen=True)
class LeNet(PooledConv):
    """LeNet: 5x5 convolutions 6-16 with pooling, dense 120-84 (LeCun et al. 1998), mirrored."""

    channels: Annotated[tuple[int, ...], Each(AtLeast(1), "a list of one or more sizes of 1 or more", some=True)] = (
        6,
        16,
    )
    """Channels of the stages; the decoder has them in reverse."""
    kernel: Annotated[int, AtLeast(1)] = 5
    """Kernel size of the encoder's convolutions."""
    up_kernel: Annotated[int, AtLeast(1)] = 5
    """Kernel size of every decoder stage (one more, if even, where upsampling is nearest)."""
    dense: Annotated[tuple[int, ...], EACH_AT_LEAST_ONE] = (120, 84)
    """Widths of the dense layers between the convolutions and the code."""
