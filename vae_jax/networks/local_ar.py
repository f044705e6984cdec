"""A strong decoder, the one with which posteriors collapse: pixels in raster order, each from the pixels near it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from vae_jax.errors import InputError
from vae_jax.networks.base import ACTIVATIONS, Activation, Network
from vae_jax.networks.dropout import keep
from vae_jax.networks.mlp import DenseStack


class LocalDecoder(nn.Module):
    """g(x before (i, j) in a window, z, position): codes [B, D] and images [B, H, W, C'] to [B, H, W, C].

    h = W_x [2 x - 1 of the window] + W_z z + v_ij, then 1x1 layers. The window is the upper half of kernel x kernel
    pixels around (i, j), and what lies left of it: pixels before (i, j) in raster order and no others. Pixels outside
    of the image, and those dropped, are 0 = "not known".
    """

    kernel: int
    hidden: tuple[int, ...]
    out_shape: tuple[int, int, int]
    activation: str
    input_dropout: float
    skip: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, z, x, keys=None, at=None):
        """Returns the outputs of all pixels [B, H, W, C], or of the pixel `at` = (row, column) alone, [B, 1, 1, C]."""
        act = ACTIVATIONS[self.activation]
        height, width, channels = self.out_shape
        known = 2.0 * x - 1.0
        if keys is not None and self.input_dropout:
            known = jnp.where(keep(keys, "pixels", self.input_dropout, (height, width, 1)), known, 0.0)
        table = self.param("position", nn.initializers.normal(0.1), (height, width, self.hidden[0]))
        window, position = self._windows(known, None if at is None else jnp.stack(at), table)
        rows, columns = position.shape[:2]
        h = nn.Dense(self.hidden[0], dtype=self.dtype, name="context")(window)
        h = h + nn.Dense(self.hidden[0], use_bias=False, dtype=self.dtype, name="code")(z)[:, None, :]
        h = act(h + jnp.asarray(position, self.dtype).reshape(1, rows * columns, -1))
        for i, features in enumerate(self.hidden[1:]):
            h = nn.Dense(features, dtype=self.dtype, name=f"hidden_{i}")(h)
            if self.skip:
                h = h + nn.Dense(features, use_bias=False, dtype=self.dtype, name=f"code_{i}")(z)[:, None, :]
            h = act(h)
        h = nn.Dense(channels, dtype=self.dtype, name="out")(h)
        return h.reshape(-1, rows, columns, channels)

    def _windows(self, x, at, table):
        """Returns (the known pixels around each pixel [B, P, M], the rows of the position table [h, w, F])."""
        reach = self.kernel // 2
        rows, columns = self.out_shape[:2]
        x = jnp.pad(x, ((0, 0), (reach, 0), (reach, reach), (0, 0)))
        if at is not None:
            x = lax.dynamic_slice(x, (0, at[0], at[1], 0), (x.shape[0], reach + 1, self.kernel, x.shape[-1]))
            table = lax.dynamic_slice(table, (at[0], at[1], 0), (1, 1, table.shape[-1]))
            rows = columns = 1
        # Columns first, then rows: two short concatenations cost XLA:CPU half of one long one, and less than the
        # gradient of a masked convolution.
        near = jnp.concatenate([x[:, :, j : j + columns] for j in range(self.kernel)], axis=-1)
        above = [near[:, i : i + rows] for i in range(reach)]
        left = near[:, reach : reach + rows, :, : reach * x.shape[-1]]
        window = jnp.concatenate([*above, left], axis=-1)
        return window.reshape(x.shape[0], rows * columns, -1), table


@dataclass(frozen=True)
class LocalAR(Network):
    """MLP encoder; autoregressive decoder: a causal window, the code and the place, 1x1 layers (arXiv:1611.02731)."""

    hidden: tuple[int, ...] = (256,)
    """Widths of the encoder's hidden layers."""
    activation: Activation = "relu"
    """Activation between layers."""
    kernel: int = 7
    """Side of the window, odd: a pixel sees (kernel^2 - 1) / 2 pixels before it. The decoder's reach."""
    pixel_hidden: tuple[int, ...] = (32, 32)
    """Widths of the decoder's 1x1 layers."""
    input_dropout: float = 0.0
    """Share of the pixels hidden from the decoder in training, as in word dropout (arXiv:1511.06349)."""
    skip: bool = False
    """Skip-VAE: every decoder layer sees the code, not the first alone (arXiv:1807.04863)."""

    autoregressive: ClassVar[bool] = True

    @property
    def noisy(self) -> bool:
        return self.input_dropout > 0.0

    def check(self, image_shape: tuple[int, int, int]) -> None:
        if self.kernel % 2 == 0 or self.kernel < 3:
            raise InputError(
                f"model.network.kernel: {self.kernel} has no middle with pixels before it; use 3, 5, 7, ..."
            )

    def encoder(self, outputs: int, dtype: jnp.dtype) -> nn.Module:
        return DenseStack(self.hidden, (outputs,), self.activation, dtype)

    def decoder(self, out_shape: tuple[int, int, int], dtype: jnp.dtype) -> nn.Module:
        return LocalDecoder(
            self.kernel, self.pixel_hidden, out_shape, self.activation, self.input_dropout, self.skip, dtype
        )
