"""Nearest entries of a codebook, without a matrix of all distances."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from vae_jax.quantizers import shards

_FLOATS = 2**20  # distances held at a time


def nearest(z: jax.Array, codebook: jax.Array, *, most: int = _FLOATS) -> jax.Array:
    """Returns the index of the entry at the least distance |z - e_k|; of equal ones the first.

    No more than about `most` distances exist at a time, so that memory does not grow with N K.

    Args:
      z: vectors [..., D].
      codebook: entries [K, D].
      most: distances held at a time.

    Returns:
      int32 [...].

    Example:
      >>> import jax.numpy as jnp
      >>> nearest(jnp.array([[0.1], [0.8]]), jnp.array([[0.0], [1.0], [1.0]])).tolist()
      [0, 1]
    """
    entries = jax.lax.stop_gradient(codebook).astype(jnp.float32)
    flat = jax.lax.stop_gradient(z).reshape(-1, z.shape[-1]).astype(jnp.float32)
    search = partial(_search, most=most)
    if shards.split(entries.shape, flat.shape[0]):
        return shards.nearest(search, flat, entries).reshape(z.shape[:-1])
    return search(flat, entries)[1].reshape(z.shape[:-1])


def _search(flat: jax.Array, entries: jax.Array, *, most: int) -> tuple[jax.Array, jax.Array]:
    """Returns the least distance of vectors [N, D], less what no entry changes, and which entry has it, [N] each."""
    # Blocks of entries of a few hundred rows' worth, then as many rows as fit beside them.
    columns = min(len(entries), max(most // 256, 1))
    rows = max(most // columns, 1)
    # |z - e|^2 / 2 less |z|^2 / 2, which does not depend on the entry.
    offsets = 0.5 * jnp.sum(jnp.square(entries), -1)
    # Of a symbolic number of vectors nothing is known but that all of them are there: one block of rows.
    if is_symbolic_dim(flat.shape[0]) or len(flat) <= rows:
        return _of_rows(flat, entries, offsets, columns)
    # One block of rows after another; within it, one block of entries after another.
    of_rows = partial(_of_rows, entries=entries, offsets=offsets, columns=columns)
    least, index = jax.lax.map(of_rows, _blocks(flat, rows, 0.0))
    return least.reshape(-1)[: len(flat)], index.reshape(-1)[: len(flat)]


def _blocks(x: jax.Array, size: int, fill: float) -> jax.Array:
    """Returns rows [N, ...] in blocks [ceil(N / size), size, ...], the last one filled up."""
    short = -len(x) % size
    padded = jnp.pad(x, [(0, short)] + [(0, 0)] * (x.ndim - 1), constant_values=fill)
    return padded.reshape(-1, size, *x.shape[1:])


def _of_rows(z: jax.Array, entries: jax.Array, offsets: jax.Array, columns: int) -> tuple[jax.Array, jax.Array]:
    """Returns the same of a few vectors [n, D], [n] each."""
    if columns >= len(entries):
        return _least(z, entries, offsets)
    blocks = _blocks(entries, columns, 0.0), _blocks(offsets, columns, jnp.inf)
    least, index = jax.lax.map(lambda block: _least(z, *block), blocks)
    # [blocks, n]: the first block among equals has the lower indices.
    best = jnp.argmin(least, 0)
    local = jnp.take_along_axis(index, best[None], 0)[0]
    return jnp.min(least, 0), best.astype(jnp.int32) * columns + local


def _least(z: jax.Array, entries: jax.Array, offsets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the least distance of each vector, and which entry has it, [n] each."""
    distances = offsets[None] - jax.lax.dot_general(z, entries, (((1,), (1,)), ((), ())), precision="highest")
    least = jnp.min(distances, -1)
    # Two plain reductions, which XLA vectorizes on the CPU; its argmin it does not.
    position = jax.lax.broadcasted_iota(jnp.int32, distances.shape, 1)
    found = jnp.min(jnp.where(distances == least[:, None], position, len(entries)), -1)
    # A NaN equals nothing: index 0 stands for it, and its distance shows in the error.
    return least, jnp.where(found < len(entries), found, 0)
