"""Collectives that are the identity in the global view (`axis_name=None`: plain jit, or jit over a mesh).

Whatever couples examples (gradient means, batch variances, codebook sums) goes through here and nowhere else; that
is what lets one train step run unchanged under `jit`, `shard_map` and `pmap`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh

T = TypeVar("T")
# Axes of the runner's mesh: the batch is split over both, what is large of the state over the second.
DATA, FSDP = BATCH = ("data", "fsdp")
# Smaller leaves are replicated: gathering them would cost more than the memory saved.
MIN_SHARDED_SIZE = 2**14


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


def mesh_shape() -> dict[str, int]:
    """Returns the axes of the mesh that the program being traced is `within`; none elsewhere."""
    mesh = jax.sharding.get_abstract_mesh()
    # Under `shard_map` the axes are manual: the code sees one shard, and there is nothing left to split.
    auto = all(kind == AxisType.Auto for kind in mesh.axis_types)
    return dict(mesh.shape) if auto else {}


def within(mesh: Mesh, function: Callable[..., T], *args: object) -> T:
    """Returns `function(*args)`, in which `mesh_shape` knows the mesh."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return function(*args)
