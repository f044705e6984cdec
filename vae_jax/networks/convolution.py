"""2-D convolution and transposed convolution, NHWC activations and HWIO kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def conv(x: jax.Array, w: jax.Array, *, stride: int = 1, padding: str = "SAME") -> jax.Array:
  """Cross-correlation, equal to `lax.conv_general_dilated` of the same padding.

  y[b, i, j, o] = sum_{u, v, c} x[b, stride i + u - lo, stride j + v - lo, c] w[u, v, c, o]

  Args:
    x: `[B, H, W, C]`.
    w: `[K, K, C, O]`.
    stride: step of the window, the same both ways.
    padding: "SAME" (output `ceil(H / stride)`) or "VALID".

  Returns:
    `[B, H', W', O]`.
  """
  return lax.conv_general_dilated(x, w, (stride, stride), padding, dimension_numbers=_DIMENSIONS)


def conv_transpose(x: jax.Array, w: jax.Array, *, stride: int = 1) -> jax.Array:
  """Fractionally strided cross-correlation, `lax.conv_transpose(padding="SAME", transpose_kernel=False)`.

  The input is dilated by `stride` (zeros between pixels) and correlated with `w` as it stands (no flip, no swap of
  channels), so the kernel is `[K, K, in, out]`, as in `flax.linen.ConvTranspose`.

  Args:
    x: `[B, H, W, C]`.
    w: `[K, K, C, O]`.
    stride: factor of enlargement, the same both ways.

  Returns:
    `[B, stride H, stride W, O]`.
  """
  return lax.conv_transpose(x, w, (stride, stride), "SAME", dimension_numbers=_DIMENSIONS)


class _ConvBase(nn.Module):
  """Fields and parameters that both convolutions share."""

  features: int
  kernel: int = 3
  stride: int = 1
  use_bias: bool = True
  padding: str = "SAME"
  dtype: Any = None
  param_dtype: Any = jnp.float32
  kernel_init: Callable = nn.initializers.lecun_normal()
  bias_init: Callable = nn.initializers.zeros_init()

  def _operands(self, x):
    """Creates the parameters and brings them and x `[B, H, W, C]` to the compute dtype."""
    shape = (self.kernel, self.kernel, x.shape[-1], self.features)
    kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
    bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype) if self.use_bias else None
    return nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)


class Conv(_ConvBase):
  """Convolution with the parameters of `flax.linen.Conv`: `kernel` `[K, K, C, O]` and `bias` `[O]`."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """y = conv(x, kernel) + bias, x `[B, H, W, C]` to `[B, H', W', O]`."""
    x, kernel, bias = self._operands(x)
    y = conv(x, kernel, stride=self.stride, padding=self.padding)
    return y if bias is None else y + bias.reshape(1, 1, 1, -1)


class ConvTranspose(_ConvBase):
  """Transposed convolution to `stride` times the size.

  Given the same parameters equal to `flax.linen.ConvTranspose(padding="SAME", transpose_kernel=False)`: `kernel`
  `[K, K, C, O]` (in before out) correlates the dilated input without a flip, and `bias` is `[O]`.
  """

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """y = conv_transpose(x, kernel) + bias, x `[B, H, W, C]` to `[B, stride H, stride W, O]`."""
    if self.padding != "SAME":
      raise ValueError(f"ConvTranspose knows padding 'SAME' only, got {self.padding!r}")
    x, kernel, bias = self._operands(x)
    y = conv_transpose(x, kernel, stride=self.stride)
    return y if bias is None else y + bias.reshape(1, 1, 1, -1)
