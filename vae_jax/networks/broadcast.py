"""The spatial broadcast decoder: every pixel is decoded from the code and its own coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp

from vae_jax.errors import InputError, option
from vae_jax.networks.base import ACTIVATIONS
from vae_jax.networks.conv import Conv64
from vae_jax.options.ranges import AtLeast, Each, Positive
from vae_jax.spec import ArraySpec


class BroadcastDecoder(nn.Module):
    """A network of 1x1 convolutions on (code, row, column): [B, D] -> [B, H, W, C].

    x[i, j] = g(z, r_i, c_j), r from -1 to 1 and c from -aspect to aspect. The first layer is affine, so its halves are
    computed apart and added: the tiled input [B, H, W, D + 2] never exists. With `patch` = p the coordinates are
    those of p x p squares, all pixels of which are decoded at once; what reaches over the edge is cut off.
    """

    hidden: tuple[int, ...]
    patch: int
    out_shape: tuple[int, ...]
    activation: str
    aspect: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, z):
        act = ACTIVATIONS[self.activation]
        height, width, channels = self.out_shape
        p, down, across = self.patch, -(-height // self.patch), -(-width // self.patch)
        row, column = jnp.linspace(-1.0, 1.0, down), jnp.linspace(-self.aspect, self.aspect, across)
        rows, columns = jnp.meshgrid(row, column, indexing="ij")
        grid = jnp.stack([rows, columns], axis=-1).reshape(1, down * across, 2)
        x = nn.Dense(self.hidden[0], dtype=self.dtype, name="code")(z)[:, None, :]
        x = act(x + nn.Dense(self.hidden[0], use_bias=False, dtype=self.dtype, name="position")(grid))
        for i, features in enumerate(self.hidden[1:]):
            x = act(nn.Dense(features, dtype=self.dtype, name=f"hidden_{i}")(x))
        x = nn.Dense(p * p * channels, dtype=self.dtype, name="out")(x)
        x = x.reshape(-1, down, across, p, p, channels).swapaxes(2, 3)
        return x.reshape(-1, down * p, across * p, channels)[:, :height, :width]


@dataclass(frozen=True)
class Broadcast(Conv64):
    """Strided conv encoder with a spatial broadcast decoder, which favors codes of position (arXiv:1901.07017)."""

    pixel_hidden: Annotated[tuple[int, ...], Each(AtLeast(1), "one or more sizes of 1 or more", some=True)] = (
        64,
        64,
        64,
    )
    """Widths of the decoder's 1x1 layers."""
    patch: Annotated[int, AtLeast(1)] = 1
    """Side of the square of pixels that one coordinate decodes: 4 takes a sixteenth of the products of 1."""
    aspect: Annotated[float, Positive()] = 1.0
    """Range of the column coordinate over that of the row's; away from 1, x is learned before y (or after)."""

    def check(self, x: ArraySpec) -> None:
        super().check(x)
        # Inherited from the net whose encoder this is; this decoder never doubles, so they would do nothing.
        for name in ("up_kernel", "upsample"):
            value, only = getattr(self, name), getattr(Conv64(), name)
            if value != only:
                raise InputError(
                    f"model.network.{name}: {value} is not used because the broadcast decoder does not upsample; set "
                    f"{option(f'model.network.{name}', only)}, or use {option('model.network', 'conv64')}"
                )

    def decoder(self, out_shape: tuple[int, ...], dtype: jnp.dtype) -> nn.Module:
        return BroadcastDecoder(self.pixel_hidden, self.patch, out_shape, self.activation, self.aspect, dtype)
