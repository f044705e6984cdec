"""Convolution and its two gradients as matrix products, for XLA:CPU.

XLA:CPU has a fast kernel for plain convolutions only. Their weight gradients run 50 to 100 times slower than the
same arithmetic as matrix products, and gradients of strided inputs 2 to 6 times, so each of the three maps

    forward       y[i]  = sum_u x[s i + u - low] w[u]
    input_grad    dx    = its transpose in x
    weight_grad   dw[u] = sum_i x[s i + u - low] dy[i]

picks among these forms (`benchmarks/conv_layers.py` times them against the native operation):

    blocks    kernel = stride or 2 stride (4x4/2, 2x2/2, 1x1). Pixels of a stride x stride block become channels, which
              leaves a convolution of 1 or 2 taps at stride 1; all taps share one product whose intermediates are as
              large as the input, where im2col's are kernel^2 / stride^2 times larger.
    minimal   the same at 64 or more channels in float32: Winograd's F(2, 2) makes 2 outputs of 2 taps from 3
              products, so 9 instead of 16 in two dimensions. With fewer channels its additions cost more than it saves.
    few       at most 4 channels on the large side: k^2 taps as rows of one product, then slices or an overlap-add.
    native    everything else that XLA:CPU is fast at; weight gradients as one product per tap.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from vae_jax.networks import conv_native, winograd
from vae_jax.networks.conv_native import Window
from vae_jax.networks.winograd import interleave

_FEW = 4  # channels up to which k^2 taps are cheaper than blocks
_MINIMAL = 64  # channels from which F(2, 2) beats plain blocks


def forward(x: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """y = x * w, x `[B, H, W, C]` and w `[K, K, C, O]` to `[B, H', W', O]`."""
    if w.shape[2] == 1:
        # A multiply-add per tap: with one channel there is nothing to contract, and it fuses with bias and activation.
        # Like all sums in float32 at least: in bfloat16 each addition would round to 8 bits.
        wide = _sum_type(x)
        taps, rows = _windows(x.astype(wide), window), w.astype(wide).reshape(-1, 1, 1, 1, w.shape[3])
        return functools.reduce(jnp.add, (tap * row for tap, row in zip(taps, rows))).astype(x.dtype)
    if not _in_blocks(window):
        return conv_native.forward(x, w, window)
    blocks, taps = _to_blocks(x, window), _to_taps(w, window)
    if _is_minimal(w.shape, window, x.dtype):
        y = winograd.merge_output(winograd.each(_matmul, winograd.split_input(blocks), winograd.split_kernel(taps)))
    else:
        y = _overlap(_matmul(blocks, _join(taps)), window)
    return y.astype(x.dtype)


def input_grad(dy: jax.Array, w: jax.Array, window: Window) -> jax.Array:
    """Transpose of `forward` in x, dy `[B, H', W', O]` and w `[K, K, C, O]` to `[B, H, W, C]`."""
    k, _, channels, features = w.shape
    if channels <= _FEW:
        taps = _matmul(dy, w.reshape(-1, features).T)
        return _overlap_add(taps.reshape(*dy.shape[:3], k, k, channels), window).astype(dy.dtype)
    if not _in_blocks(window):
        return conv_native.input_grad(dy, w, window)
    taps = _to_taps(w, window)
    if _is_minimal(w.shape, window, dy.dtype):
        blocks = winograd.merge_input(
            winograd.each(lambda d, g: _matmul(d, g.T), winograd.split_gradient(dy), winograd.split_kernel(taps))
        )
    else:
        blocks = _matmul(_spread(dy, window), _join(taps).T)
    return _from_blocks(blocks, window).astype(dy.dtype)


def weight_grad(x: jax.Array, dy: jax.Array, window: Window) -> jax.Array:
    """Transpose of `forward` in w, x `[B, H, W, C]` and dy `[B, H', W', O]` to `[K, K, C, O]`."""
    shape = (window.kernel, window.kernel, x.shape[3], dy.shape[3])
    if x.shape[3] <= _FEW:
        # Taps and channels lead: the product then needs no transposed copy of either side.
        rows = jnp.stack(_windows(x, window)).transpose(0, 4, 1, 2, 3)
        dw = lax.dot_general(rows, dy, (((2, 3, 4), (0, 1, 2)), ((), ())), preferred_element_type=_sum_type(x))
    elif not _in_blocks(window):
        dw = jnp.stack([_contract(tap, dy) for tap in _windows(x, window)])
    elif _is_minimal(shape, window, x.dtype):
        products = winograd.each(_contract, winograd.split_input(_to_blocks(x, window)), winograd.split_gradient(dy))
        dw = _from_taps(winograd.merge_kernel(products), window)
    else:
        m = window.kernel // window.stride
        rows = _contract(_to_blocks(x, window), _spread(dy, window)).reshape(-1, m, m, shape[3])
        dw = _from_taps([[rows[:, a, b] for b in range(m)] for a in range(m)], window)
    return dw.reshape(shape).astype(x.dtype)


# Products. Sums run in float32 at least; the results of the three maps are cast back.


def _sum_type(x):
    return jnp.promote_types(x.dtype, jnp.float32)


def _matmul(a, b):
    """a `[B, N, N', K]` times b `[K, M]`."""
    return lax.dot_general(a, b, (((3,), (0,)), ((), ())), preferred_element_type=_sum_type(a))


def _contract(a, b):
    """sum over batch and pixels of a `[B, N, N', K]` times b `[B, N, N', M]`, to `[K, M]`."""
    axes = (0, 1, 2)
    return lax.dot_general(a, b, ((axes, axes), ((), ())), preferred_element_type=_sum_type(a))


# Taps: the pixels under each position of the kernel.


def _windows(x, window):
    """x `[B, H, W, C]` to k^2 views `[B, H', W', C]`, one per tap."""
    (top, bottom), (left, right) = window.padding
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0)])
    s, k = window.stride, window.kernel
    rows, columns = (s * (n - 1) + 1 for n in window.out)
    return [x[:, u : u + rows : s, v : v + columns : s] for u in range(k) for v in range(k)]


def _overlap_add(taps, window):
    """Adds taps `[B, H', W', k, k, C]` where they fall: x[s i + u - low] += taps[i, u], to `[B, H, W, C]`."""
    rows = _overlap_add_axis(jnp.moveaxis(taps, 3, 0), 1, window, axis=0)
    return _overlap_add_axis(jnp.moveaxis(rows, 3, 0), 2, window, axis=1)


def _overlap_add_axis(taps, dim, window, axis):
    """The same along one axis: taps `[k, ...]` with H' at `dim` of each, to `[...]` with H there."""
    s, low, size, n = window.stride, window.low[axis], window.size[axis], window.out[axis]
    length = -(-size // s)
    zero = jnp.zeros((), taps.dtype)
    phases = []
    for phase in range(s):
        total = None
        for u in range(window.kernel):
            shift, rest = divmod(u - low - phase, s)
            if rest == 0:
                config = [(0, 0, 0)] * (taps.ndim - 1)
                config[dim] = (shift, length - n - shift, 0)
                term = lax.pad(taps[u], zero, config)
                total = term if total is None else total + term
        if total is None:  # kernel < stride leaves pixels that no window covers
            shape = list(taps.shape[1:])
            shape[dim] = length
            total = jnp.zeros(shape, taps.dtype)
        phases.append(total)
    return lax.slice_in_dim(interleave(phases, dim), 0, size, axis=dim)


# Blocks: stride x stride pixels as channels, which leaves m = kernel / stride taps at stride 1.


def _in_blocks(window):
    """Whether the block form covers this geometry."""
    return window.kernel == window.stride or (window.kernel == 2 * window.stride and window.stride > 1)


def _is_minimal(kernel_shape, window, dtype):
    """Whether F(2, 2) applies (2 taps, whole 2 x 2 tiles of outputs), pays, and keeps the accuracy of the dtype.

    Its sums before the products would round to 8 bits in bfloat16: three times the error of plain blocks.
    """
    tiles = all(n % 2 == 0 for n in window.out)
    wide = jnp.promote_types(dtype, jnp.float32) == dtype
    return wide and window.kernel == 2 * window.stride and tiles and max(kernel_shape[2:]) >= _MINIMAL


def _grid(window):
    """Blocks along each axis: every output meets m of them."""
    return [n + window.kernel // window.stride - 1 for n in window.out]


def _to_blocks(x, window):
    """x `[B, H, W, C]`, padded, to `[B, N, N', s s C]`."""
    (top, bottom), (left, right) = window.padding
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0)])
    batch, s, (n, m), channels = x.shape[0], window.stride, _grid(window), x.shape[3]
    x = x.reshape(batch, n, s, m, s, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, n, m, s * s * channels)


def _from_blocks(blocks, window):
    """Transpose of `_to_blocks`, `[B, N, N', s s C]` to `[B, H, W, C]`."""
    batch, n, m, channels = blocks.shape
    s = window.stride
    x = blocks.reshape(batch, n, m, s, s, channels // s**2).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(batch, s * n, s * m, channels // s**2)
    crop = [(0, 0, 0), *((-low, -high, 0) for low, high in window.padding), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), crop)


def _to_taps(w, window):
    """w `[K, K, C, O]` to m x m lists of `[s s C, O]`."""
    s, m, (channels, features) = window.stride, window.kernel // window.stride, w.shape[2:]
    w = w.reshape(m, s, m, s, channels, features).transpose(0, 2, 1, 3, 4, 5).reshape(m, m, -1, features)
    return [[w[a, b] for b in range(m)] for a in range(m)]


def _from_taps(taps, window):
    """Inverse of `_to_taps`, to `[K, K, C, O]`."""
    s, m, features = window.stride, window.kernel // window.stride, taps[0][0].shape[1]
    w = jnp.stack([jnp.stack(row) for row in taps]).reshape(m, m, s, s, -1, features)
    return w.transpose(0, 2, 1, 3, 4, 5).reshape(window.kernel, window.kernel, -1, features)


def _join(taps):
    """m x m taps `[K, O]` side by side, `[K, m m O]`."""
    return jnp.concatenate([tap for row in taps for tap in row], axis=1)


def _overlap(rows, window):
    """Sums the taps of each output: rows `[B, N, N', m m O]` to `[B, H', W', O]`."""
    m, (height, width), features = window.kernel // window.stride, window.out, rows.shape[3]
    rows = rows.reshape(*rows.shape[:3], m * m, features // m**2)
    return functools.reduce(
        jnp.add, (rows[:, a : a + height, b : b + width, a * m + b] for a in range(m) for b in range(m))
    )


def _spread(dy, window):
    """Transpose of `_overlap`, `[B, H', W', O]` to `[B, N, N', m m O]`."""
    m = window.kernel // window.stride
    shifts = [(a, m - 1 - a) for a in range(m)]
    return jnp.concatenate([jnp.pad(dy, ((0, 0), a, b, (0, 0))) for a in shifts for b in shifts], axis=3)
