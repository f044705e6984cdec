"""Convolution and its two gradients as the backend's own convolution: the form for GPU and TPU.

The gradients are written out rather than left to autodiff, which makes the three maps the same whatever the backend
(`conv_cpu` has them as matrix products):

    forward       y[i]  = sum_u x[s i + u - low] w[u]
    input_grad    dx    = its transpose in x
    weight_grad   dw[u] = sum_i x[s i + u - low] dy[i]
"""

from __future__ import annotations

from typing import NamedTuple

import jax
from jax import lax


class Window(NamedTuple):
    """Static geometry of a convolution from `size` to `out` pixels; `low` zeros go before the first pixel."""

    kernel: int
    stride: int
    low: tuple[int, int]
    size: tuple[int, int]
    out: tuple[int, int]

    @property
    def padding(self) -> list[tuple[int, int]]:
        """Pixels added (cropped where negative) before and after, for each axis."""
        last = [self.stride * (n - 1) + self.kernel for n in self.out]
        return [(low, end - low - size) for low, end, size in zip(self.low, last, self.size)]

    @property
    def transposed_padding(self) -> list[tuple[int, int]]:
        """The same for the transposed convolution, which leads from `out` back to `size`."""
        last = [size - self.stride * (n - 1) - 1 for size, n in zip(self.size, self.out)]
        return [(self.kernel - 1 - low, end + low) for low, end in zip(self.low, last)]


def rotate(w: jax.Array) -> jax.Array:
    """Turns a kernel by 180 degrees and swaps its channels, `[K, K, C, O]` to `[K, K, O, C]`; its own inverse."""
    return w[::-1, ::-1].swapaxes(2, 3)


def forward(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """y = x * w, x `[B, H, W, C]` and w `[K, K, C, O]` to `[B, H', W', O]`."""
    strides = (window.stride, window.stride)
    return lax.conv_general_dilated(x, w, strides, window.padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def input_grad(dy: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """Transpose of `forward` in x, dy `[B, H', W', O]` and w `[K, K, C, O]` to `[B, H, W, C]`."""
    return lax.conv_general_dilated(
        dy,
        # Without the barrier XLA folds the rotation into a reversed window, which CPU lacks a fast kernel for.
        lax.optimization_barrier(rotate(w)),
        window_strides=(1, 1),
        padding=window.transposed_padding,
        lhs_dilation=(window.stride, window.stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def weight_grad(x: jax.Array, dy: jax.Array, window: Window) -> jax.Array:
    """Transpose of `forward` in w, x `[B, H, W, C]` and dy `[B, H', W', O]` to `[K, K, C, O]`."""
    return lax.conv_general_dilated(
        x,
        dy,
        window_strides=(1, 1),
        padding=window.padding,
        rhs_dilation=(window.stride, window.stride),
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
    )
