"""Winograd's minimal filtering F(2, 2) along both axes: 2 x 2 outputs of 2 x 2 taps from 9 products instead of 16.

    y0 = d0 g0 + d1 g1,  y1 = d1 g0 + d2 g1    from    p = [(d0 - d1) g0, d1 (g0 + g1), (d1 - d2) g1]
    y0 = p0 + p1,        y1 = p1 - p2

Only additions besides the products, so float32 keeps its accuracy. Factors and products are 3 x 3 lists of arrays;
every map is linear and stands next to its transpose, which is all that the gradients need.

References:
  Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv:1509.09308.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax


def each(product: Callable, a, b):
    """3 x 3 products of two 3 x 3 lists."""
    return [[product(p, q) for p, q in zip(*rows)] for rows in zip(a, b)]


def _both_axes(transform, values):
    """Applies a map between lists along the columns, then along the rows, of a list of lists."""
    columns = [transform(row) for row in values]
    return [list(row) for row in zip(*(transform(list(column)) for column in zip(*columns)))]


def split_input(blocks):
    """blocks `[B, 2 n + 1, 2 m + 1, K]` to d factors `[B, n, m, K]`."""

    def split(x, axis):
        d0, d1, d2 = (lax.slice_in_dim(x, i, x.shape[axis] - 2 + i, 2, axis) for i in range(3))
        return [d0 - d1, d1, d1 - d2]

    return [split(row, 2) for row in split(blocks, 1)]


def merge_input(factors):
    """Transpose of `split_input`: neighboring tiles share a block."""

    def merge(d0, d1, d2, axis):
        before, after = ([(0, 0)] * d0.ndim for _ in range(2))
        before[axis], after[axis] = (1, 0), (0, 1)
        even = jnp.pad(d0, after) - jnp.pad(d2, before)
        odd = jnp.pad(d1 + d2 - d0, after)
        return lax.slice_in_dim(interleave([even, odd], axis), 0, 2 * d0.shape[axis] + 1, axis=axis)

    return merge(*(merge(*row, axis=2) for row in factors), axis=1)


def split_kernel(taps):
    """2 x 2 taps `[K, O]` to g factors."""
    return _both_axes(lambda g: [g[0], g[0] + g[1], g[1]], taps)


def merge_kernel(factors):
    """Transpose of `split_kernel`."""
    return _both_axes(lambda g: [g[0] + g[1], g[1] + g[2]], factors)


def merge_output(products):
    """Products `[B, n, m, O]` to `[B, 2 n, 2 m, O]`."""
    tiles = _both_axes(lambda p: [p[0] + p[1], p[1] - p[2]], products)
    return interleave([interleave(row, 2) for row in tiles], 1)


def split_gradient(dy):
    """Transpose of `merge_output`."""
    tiles = [[dy[:, i::2, j::2] for j in range(2)] for i in range(2)]
    return _both_axes(lambda y: [y[0], y[0] + y[1], -y[1]], tiles)


def interleave(arrays, dim):
    """Arrays of length n at `dim` to one of s n, array p at positions p, s + p, ..."""
    shape = list(arrays[0].shape)
    shape[dim] *= len(arrays)
    return jnp.stack(arrays, dim + 1).reshape(shape)
