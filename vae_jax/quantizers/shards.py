"""Codebooks whose entries lie on several devices: each device searches and sums the ones that it holds.

Inside `collectives.within(mesh)` vectors [N, D] are split over all devices and entries [K, D] over axis `fsdp`, n to a
row of the mesh. Left to the compiler every device would gather the whole codebook. Here the vectors of a row travel
instead: N D numbers where the codebook has K D, and no device ever holds more than K / n entries.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim
from jax.sharding import PartitionSpec

from vae_jax import collectives
from vae_jax.collectives import FSDP

# First axes: of vectors over all devices, of entries over one row of the mesh.
_VECTORS, _ENTRIES = PartitionSpec(collectives.BATCH), PartitionSpec(FSDP)


def split(book: tuple[int, ...], vectors: Any) -> bool:
    """Says whether the program being traced holds a codebook of shape [K, D] in shards, and N vectors as well."""
    shape = collectives.mesh_shape()
    # A mesh of the caller's own may have other axes than those that are named here.
    n = shape[FSDP] if set(collectives.BATCH) <= shape.keys() else 1
    # As `train.sharding` places it.
    if n == 1 or math.prod(book) < collectives.MIN_SHARDED_SIZE or book[0] % n:
        return False
    # Vectors that do not divide are left to the compiler, which may gather what it likes.
    return not is_symbolic_dim(vectors) and vectors % math.prod(shape.values()) == 0


def nearest(search: Callable, z: jax.Array, book: jax.Array) -> jax.Array:
    """Returns the nearest entries of vectors [N, D], int32 [N]; of equal ones the first.

    Args:
      search: `(z, entries) -> (least distance [N], index [N])` of one device.
      z: vectors [N, D].
      book: entries [K, D].
    """
    return jax.shard_map(partial(_nearest, search), in_specs=(_VECTORS, _ENTRIES), out_specs=_VECTORS)(z, book)


def take(book: jax.Array, index: jax.Array) -> jax.Array:
    """Returns the entries [..., D] of indices [...], with the gradient of the codebook."""
    if not split(book.shape, math.prod(index.shape)):
        return book[index]
    taken = jax.shard_map(_take, in_specs=(_ENTRIES, _VECTORS), out_specs=_VECTORS)(book, index.reshape(-1))
    return taken.reshape(*index.shape, -1)


def pick(z: jax.Array, rows: jax.Array) -> jax.Array:
    """Returns vectors of a batch [N, D] by their rows [K], [K, D], to be entries of a codebook."""
    if not split((len(rows), z.shape[-1]), len(z)):
        return z[rows]
    # The whole batch on every device, which takes from it what its own entries become.
    return jax.shard_map(_pick, in_specs=(PartitionSpec(), _ENTRIES), out_specs=_ENTRIES)(z, rows)


def sums(z: jax.Array, index: jax.Array, codes: int) -> tuple[jax.Array, jax.Array]:
    """Returns how many vectors chose each entry [K], and their sum [K, D], float32.

    Args:
      z: vectors [N, D], in the global view those of all devices.
      index: which entry each one chose, int32 [N].
      codes: number of entries K.
    """
    if not split((codes, z.shape[-1]), len(z)):
        return _segments(codes, z, index)
    size = codes // collectives.mesh_shape()[FSDP]
    return jax.shard_map(partial(_sums, size), in_specs=(_VECTORS, _VECTORS), out_specs=(_ENTRIES, _ENTRIES))(z, index)


def _segments(codes: int, z: jax.Array, index: jax.Array) -> tuple[jax.Array, jax.Array]:
    # Sums of segments, not a product with one-hot vectors [N, K]: K may be a quarter of a million.
    counts = jax.ops.segment_sum(jnp.ones(len(index), jnp.float32), index, codes)
    return counts, jax.ops.segment_sum(z.astype(jnp.float32), index, codes)


def _row(x: jax.Array) -> jax.Array:
    """Returns what all devices of this row of the mesh hold, one after the other."""
    return jax.lax.all_gather(x, FSDP, tiled=True)


def _local(index: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Returns indices into the `size` entries of this device, and which of them are there."""
    local = index - jax.lax.axis_index(FSDP) * size
    return local, (local >= 0) & (local < size)


def _nearest(search: Callable, z: jax.Array, book: jax.Array) -> jax.Array:
    # The best of this device's entries, for all vectors of the row.
    least, index = search(_row(z), book)
    found = least, index + jax.lax.axis_index(FSDP) * len(book)
    # Then each device is sent what the n devices found for its own vectors, [n, N / devices].
    n = jax.lax.axis_size(FSDP)
    least, index = (jax.lax.all_to_all(x.reshape(n, -1), FSDP, 0, 0, tiled=True) for x in found)
    # The first device among equals has the lower indices.
    return jnp.take_along_axis(index, jnp.argmin(least, 0)[None], 0)[0]


def _take(book: jax.Array, index: jax.Array) -> jax.Array:
    local, mine = _local(_row(index), len(book))
    entries = jnp.where(mine[:, None], book[jnp.where(mine, local, 0)], 0.0)
    # One device has the entry and the others add zeros: the sum is exact.
    return jax.lax.psum_scatter(entries, FSDP, tiled=True)


def _pick(z: jax.Array, rows: jax.Array) -> jax.Array:
    return z[rows]


def _sums(size: int, z: jax.Array, index: jax.Array) -> tuple[jax.Array, jax.Array]:
    local, mine = _local(_row(index), size)
    # Index K / n is out of range, so that the sums drop it. In the order of the batch, as on one device; then rows add
    # up.
    return jax.lax.psum(_segments(size, _row(z), jnp.where(mine, local, size)), collectives.DATA)
