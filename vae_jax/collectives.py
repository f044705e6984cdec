"""Collectives that are the identity in the global view (`axis_name=None`: plain jit, or jit over a mesh).

Whatever couples examples (gradient means, batch variances, codebook sums) goes through here and nowhere else; that
is what lets one train step run unchanged under `jit`, `shard_map` and `pmap`.
"""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp

T = TypeVar("T")


def pmean(tree: T, axis_name: str | None) -> T:
    """Returns the mean of every leaf over the devices of `axis_name`."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def psum(tree: T, axis_name: str | None) -> T:
    """Returns the sum of every leaf over the devices of `axis_name`."""
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def all_gather(x: jax.Array, axis_name: str | None) -> jax.Array:
    """Returns the global batch [n * b, ...] from the local shards [b, ...], in device order."""
    return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def example_index(batch_size: int, axis_name: str | None) -> jax.Array:
    """Returns int32 [b]: the index of each local example in the global batch."""
    local = jnp.arange(batch_size, dtype=jnp.int32)
    return local if axis_name is None else local + jax.lax.axis_index(axis_name) * batch_size
