"""Keys by name and by global example index, so that noise never depends on the layout of the devices.

Every key has one parent and one purpose. A *site* (posterior noise, binarization, ...) is named, not numbered:
adding a term to a loss does not reshuffle the noise of the others. A *per-example* key folds in the example's
index in the global batch, so one device, a mesh and `pmap` draw the same noise for the same example.
"""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp


def step_key(key: jax.Array, step: jax.Array) -> jax.Array:
    """Returns the key of one training step; the base key itself never advances, so resume needs only `step`."""
    return jax.random.fold_in(key, step)


def site_key(key: jax.Array, name: str) -> jax.Array:
    """Returns the key of the named use `name`, independent of every other name."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def site_keys(keys: jax.Array, name: str) -> jax.Array:
    """Returns the keys [B] of the named use `name`, from one key per example: keys [B]."""
    return jax.vmap(lambda key: site_key(key, name))(keys)


def example_keys(key: jax.Array, index: jax.Array) -> jax.Array:
    """Returns one key per example.

    Args:
      key: a typed key, consumed.
      index: int32 [B], the index of each example in the global batch (or in the data set).

    Returns:
      keys [B].
    """
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)


def numbered_keys(keys: jax.Array, number: int | jax.Array) -> jax.Array:
    """Returns the keys [B] of draw `number` of each example (a scalar), from one key per example: keys [B]."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def sample_keys(keys: jax.Array, numbers: jax.Array) -> jax.Array:
    """Returns the keys [K, B] of the draws `numbers` [K] of each example.

    A draw's key is that of its own number, so that how many are made at a time changes none of them.
    """
    return jax.vmap(numbered_keys, in_axes=(None, 0))(keys, numbers)


def normal(keys: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """Returns standard normal noise [B, *shape], drawn from one key per example: keys [B]."""
    return jax.vmap(lambda k: jax.random.normal(k, shape, dtype))(keys)


def uniform(keys: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """Returns uniform noise on [0, 1), [B, *shape], drawn from one key per example: keys [B]."""
    return jax.vmap(lambda k: jax.random.uniform(k, shape, dtype))(keys)
