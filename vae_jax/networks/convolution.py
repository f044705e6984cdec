"""2-D convolution and transposed convolution, NHWC activations and HWIO kernels, fast on every backend.

GPU and TPU run the native operation and its native gradients. On CPU, where XLA's gradients of convolutions are one or
two orders of magnitude slower than its matrix products, the forms of `conv_cpu` take over; the choice is made when a
program is lowered (`jax.lax.platform_dependent`), so one traced function serves all. First derivatives only, in
reverse mode.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import lax

from vae_jax.errors import InputError
from vae_jax.networks import conv_cpu, conv_native
from vae_jax.networks.conv_native import Window, rotate


def conv(x: jax.Array, w: jax.Array, *, stride: int = 1, padding: str = "SAME") -> jax.Array:
    """Cross-correlation, equal to `lax.conv_general_dilated` of the same padding.

    y[b, i, j, o] = sum_{u, v, c} x[b, stride i + u - low, stride j + v - low, c] w[u, v, c, o]

    Args:
      x: `[B, H, W, C]`.
      w: `[K, K, C, O]`, of the same dtype.
      stride: step of the window, the same both ways.
      padding: "SAME" (`H' = ceil(H / stride)`) or "VALID" (`H' = ceil((H - K + 1) / stride)`).

    Returns:
      `[B, H', W', O]`; zeros or no pixels where the batch, the image or the channels are empty.

    Raises:
      InputError: a kernel that does not fit into the image without padding, or a stride below 1.
    """
    kernel, size = _kernel_size(w), (x.shape[1], x.shape[2])
    _check_stride("conv", stride)
    if padding == "SAME":
        out = _both(lambda n: -(-n // stride), size)
        low = _both(lambda n: max(stride * (-(-n // stride) - 1) + kernel - n, 0) // 2, size)
    elif padding == "VALID":
        if kernel > min(size):
            raise InputError(
                f"conv: a kernel of {kernel}x{kernel} does not fit into an image of {size[0]}x{size[1]} without "
                f"padding; pad with padding='SAME', or use a kernel of at most {min(size)}x{min(size)}"
            )
        out, low = _both(lambda n: max(-(-(n - kernel + 1) // stride), 0), size), (0, 0)
    else:
        raise ValueError(f"padding is 'SAME' or 'VALID', got {padding!r}")
    if _is_empty(x, w):
        return jnp.zeros((x.shape[0], *out, w.shape[3]), x.dtype)
    return _conv(*_vary_alike(x, w), Window(kernel, stride, low, size, out))


def conv_transpose(x: jax.Array, w: jax.Array, *, stride: int = 1) -> jax.Array:
    """Fractionally strided convolution, equal to `lax.conv_transpose(padding="SAME", transpose_kernel=False)`.

    The input is dilated by `stride` (zeros between pixels) and cross-correlated with `w` as is: no flip, and
    the channels of the kernel are `[in, out]`, as in `flax.linen.ConvTranspose`.

    Args:
      x: `[B, H, W, C]`.
      w: `[K, K, C, O]`, of the same dtype.
      stride: factor of enlargement, the same both ways.

    Returns:
      `[B, stride H, stride W, O]`; zeros or no pixels where the batch, the image or the channels are empty.

    Raises:
      InputError: a stride below 1.
    """
    kernel, out = _kernel_size(w), (x.shape[1], x.shape[2])
    _check_stride("conv_transpose", stride)
    size = _both(lambda n: stride * n, out)
    if _is_empty(x, w):
        return jnp.zeros((x.shape[0], *size, w.shape[3]), x.dtype)
    # lax pads the dilated input by `before`; the convolution of which this is the transpose starts that much earlier.
    before = kernel - 1 if stride > kernel - 1 else -(-(kernel + stride - 2) // 2)
    low = (kernel - 1 - before, kernel - 1 - before)
    return _conv_transpose(*_vary_alike(x, w), Window(kernel, stride, low, size, out))


def _both(f: Callable[[int], int], size: tuple[int, int]) -> tuple[int, int]:
    return f(size[0]), f(size[1])


def _kernel_size(w):
    if w.ndim != 4 or w.shape[0] != w.shape[1]:
        raise ValueError(f"a kernel is [K, K, in, out], got {w.shape}")
    return w.shape[0]


def _check_stride(function: str, stride: int) -> None:
    if stride < 1:
        raise InputError(f"{function}: a stride of {stride} is out of range; use 1 or more")


def _is_empty(x, w) -> bool:
    """Whether there is nothing to sum; the forms of `conv_cpu` divide by these lengths."""
    return 0 in x.shape or 0 in w.shape


def _vary_alike(x, w):
    """Marks x and w as varying over the same axes of a `shard_map`: its transpose then sums the gradient of w."""
    varying = [_varying_axes(a) for a in (x, w)]
    missing = [tuple((varying[0] | varying[1]) - axes) for axes in varying]
    return [lax.pcast(a, axes, to="varying") if axes else a for a, axes in zip((x, w), missing)]


def _varying_axes(a):
    kind = jax.typeof(a)
    return kind.manual_axis_type.varying if hasattr(kind, "manual_axis_type") else kind.vma


# `jit` keeps what was compiled for calls outside of any other jit.


@functools.partial(jax.jit, static_argnums=2, inline=True)
def _forward(x, w, window):
    cpu, default = (functools.partial(f, window=window) for f in (conv_cpu.forward, conv_native.forward))
    return lax.platform_dependent(x, w, cpu=cpu, default=default)


@functools.partial(jax.jit, static_argnums=2, inline=True)
def _input_grad(dy, w, window):
    cpu, default = (functools.partial(f, window=window) for f in (conv_cpu.input_grad, conv_native.input_grad))
    return lax.platform_dependent(dy, w, cpu=cpu, default=default)


@functools.partial(jax.jit, static_argnums=2, inline=True)
def _weight_grad(x, dy, window):
    cpu, default = (functools.partial(f, window=window) for f in (conv_cpu.weight_grad, conv_native.weight_grad))
    return lax.platform_dependent(x, dy, cpu=cpu, default=default)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x, w, window):
    return _forward(x, w, window)


def _conv_fwd(x, w, window):
    return _forward(x, w, window), (x, w)


def _conv_bwd(window, residuals, dy):
    x, w = residuals
    return _input_grad(dy, w, window), _weight_grad(x, dy, window)


_conv.defvjp(_conv_fwd, _conv_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv_transpose(x, w, window):
    """The transpose in its input of the convolution that `window` describes, with the rotated kernel."""
    return _input_grad(x, rotate(w), window)


def _conv_transpose_fwd(x, w, window):
    return _input_grad(x, rotate(w), window), (x, w)


def _conv_transpose_bwd(window, residuals, dy):
    x, w = residuals
    return _forward(dy, rotate(w), window), rotate(_weight_grad(dy, x, window))


_conv_transpose.defvjp(_conv_transpose_fwd, _conv_transpose_bwd)


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
        return promote_dtype(x, kernel, bias, dtype=self.dtype)


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
