"""A strong decoder, the one with which posteriors collapse: pixels in raster order, each from the pixels near it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from vae_jax.errors import InputError
from vae_jax.networks.base import ACTIVATIONS, Activation, Network
from vae_jax.networks.dropout import keep
from vae_jax.networks.mlp import DenseStack
from vae_jax.options.ranges import EACH_AT_LEAST_ONE, AtLeast, Each, NotNegative, Positive, Share
from vae_jax.spec import ArraySpec


class LocalDecoder(nn.Module):
    """g(x before (i, j) in a window, z, position): codes [B, D] and images [B, H, W, C'] to [B, H, W, C].

    h = W_x [2 x - 1 of the window] + W_z z + W_m m_ij(z) + v_ij, then 1x1 layers; m are feature maps, which the code
    paints through one hidden layer as an MLP would. The window is the upper half of kernel x kernel pixels around
    (i, j), and what lies left of it: pixels before (i, j) in raster order and no others. Pixels outside of the image,
    and those dropped, are 0 = "not known".
    """

    kernel: int
    hidden: tuple[int, ...]
    out_shape: tuple[int, ...]
    activation: str
    input_dropout: float
    skip: bool
    code_hidden: int
    code_maps: int
    code_scale: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, z, x, keys=None, at=None):
        """Returns the outputs of all pixels [B, H, W, C], or of the pixel `at` = (row, column) alone, [B, 1, 1, C]."""
        act = ACTIVATIONS[self.activation]
        height, width, channels = self.out_shape
        known = 2.0 * x - 1.0
        if keys is not None and self.input_dropout:
            known = jnp.where(keep(keys, "pixels", self.input_dropout, (height, width, 1)), known, 0.0)
        at = None if at is None else jnp.stack(at)
        window = self._windows(known, at)
        position = _pick(self.param("position", nn.initializers.normal(0.1), (height, width, self.hidden[0])), at)
        rows, columns = position.shape[:2]
        h = nn.Dense(self.hidden[0], dtype=self.dtype, name="context")(window)
        h = h + self._code(z, self.hidden[0], "code")
        if self.code_maps:
            paint = nn.initializers.normal(self.code_scale / self.code_hidden**0.5)
            kernel = _pick(self.param("maps", paint, (self.code_hidden, height, width, self.code_maps)), at, 1)
            u = act(nn.Dense(self.code_hidden, dtype=self.dtype, name="code_hidden")(z))
            kernel = jnp.asarray(kernel, self.dtype).reshape(self.code_hidden, -1)
            maps = (u @ kernel).reshape(-1, rows * columns, self.code_maps)
            h = h + nn.Dense(self.hidden[0], use_bias=False, dtype=self.dtype, name="from_maps")(maps)
        h = act(h + jnp.asarray(position, self.dtype).reshape(1, rows * columns, -1))
        for i, features in enumerate(self.hidden[1:]):
            h = nn.Dense(features, dtype=self.dtype, name=f"hidden_{i}")(h)
            if self.skip:
                h = h + self._code(z, features, f"code_{i}")
            h = act(h)
        h = nn.Dense(channels, dtype=self.dtype, name="out")(h)
        return h.reshape(-1, rows, columns, channels)

    def _code(self, z, features, name):
        """Returns what the code adds to every pixel's units, [B, 1, features]."""
        start = nn.initializers.variance_scaling(self.code_scale**2, "fan_in", "truncated_normal")
        return nn.Dense(features, use_bias=False, dtype=self.dtype, kernel_init=start, name=name)(z)[:, None, :]

    def _windows(self, x, at):
        """Returns the known pixels around each pixel, or around the one `at`: [B, P, M]."""
        reach = self.kernel // 2
        rows, columns = self.out_shape[:2]
        x = jnp.pad(x, ((0, 0), (reach, 0), (reach, reach), (0, 0)))
        if at is not None:
            x = lax.dynamic_slice(x, (0, at[0], at[1], 0), (x.shape[0], reach + 1, self.kernel, x.shape[-1]))
            rows = columns = 1
        # Columns first, then rows: two short concatenations cost XLA:CPU half of one long one, and less than the
        # gradient of a masked convolution.
        near = jnp.concatenate([x[:, :, j : j + columns] for j in range(self.kernel)], axis=-1)
        above = [near[:, i : i + rows] for i in range(reach)]
        left = near[:, reach : reach + rows, :, : reach * x.shape[-1]]
        window = jnp.concatenate([*above, left], axis=-1)
        return window.reshape(x.shape[0], rows * columns, -1)


def _pick(table, at, axis=0):
    """Returns table [..., H, W, ...] with H at `axis`, or its entry `at` (row, column) alone, [..., 1, 1, ...]."""
    if at is None:
        return table
    return lax.dynamic_slice_in_dim(lax.dynamic_slice_in_dim(table, at[0], 1, axis), at[1], 1, axis + 1)


@dataclass(frozen=True)
class LocalAR(Network):
    """MLP encoder; autoregressive decoder: a causal window, the code and the place, 1x1 layers (arXiv:1611.02731)."""

    hidden: Annotated[tuple[int, ...], EACH_AT_LEAST_ONE] = (256,)
    """Widths of the encoder's hidden layers."""
    activation: Activation = "relu"
    """Activation between layers."""
    kernel: Annotated[int, AtLeast(1)] = 7
    """Side of the window, odd: a pixel sees (kernel^2 - 1) / 2 pixels before it. The decoder's reach."""
    pixel_hidden: Annotated[tuple[int, ...], Each(AtLeast(1), "one or more sizes of 1 or more", some=True)] = (32, 32)
    """Widths of the decoder's 1x1 layers."""
    input_dropout: Annotated[float, Share()] = 0.0
    """Share of the pixels hidden from the decoder in training, as in word dropout (arXiv:1511.06349)."""
    skip: bool = False
    """Skip-VAE: every decoder layer sees the code, not the first alone (arXiv:1807.04863)."""

    code_hidden: Annotated[int, AtLeast(1)] = 128
    """Width of the hidden layer through which the code paints its feature maps."""
    code_maps: Annotated[int, NotNegative()] = 4
    """Feature maps that the code paints over the image; 0 leaves the code as a constant that every pixel sees."""
    code_scale: Annotated[float, Positive()] = 1.0
    """Size of the code's weights at the start; well below 1 the decoder begins without the code, and may stay so."""

    autoregressive: ClassVar[bool] = True

    @property
    def noisy(self) -> bool:
        return self.input_dropout > 0.0

    def check(self, x: ArraySpec) -> None:
        super().check(x)
        if self.kernel % 2 == 0 or self.kernel < 3:
            raise InputError(
                f"model.network.kernel: {self.kernel} has no middle with pixels before it; use 3, 5, 7, ..."
            )

    def encoder(self, outputs: int, dtype: jnp.dtype) -> nn.Module:
        return DenseStack(self.hidden, (outputs,), self.activation, dtype)

    def decoder(self, out_shape: tuple[int, ...], dtype: jnp.dtype) -> nn.Module:
        return LocalDecoder(
            self.kernel,
            self.pixel_hidden,
            out_shape,
            self.activation,
            self.input_dropout,
            self.skip,
            self.code_hidden,
            self.code_maps,
            self.code_scale,
            dtype,
        )
