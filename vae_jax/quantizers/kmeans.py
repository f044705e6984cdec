"""Lloyd's algorithm on one batch, for the first codebook."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from vae_jax.quantizers import averages, shards
from vae_jax.quantizers.nearest import nearest


def picked(key: jax.Array, z: jax.Array, count: int) -> jax.Array:
    """Returns vectors of a batch [N, D] at random, [count, D]: all different ones while there are enough.

    Args:
      key: consumed; the same on all devices.
      z: of the global batch [N, D].
      count: how many; beyond N they repeat.
    """
    # Without replacement: two equal centers would never part.
    order = jax.random.permutation(key, len(z))
    return shards.pick(z, order[jnp.arange(count) % len(z)])


def kmeans(key: jax.Array, z: jax.Array, codes: int, steps: int) -> jax.Array:
    """Returns the centers after some steps of Lloyd's algorithm from random vectors, [K, D].

    Args:
      key: of the vectors that it starts from.
      z: vectors of the global batch [N, D].
      codes: number of centers K.
      steps: of the algorithm; a center that nothing is near stays where it is.

    Returns:
      float32 [K, D].
    """
    # A loop of the device: as many steps as there are, one program.
    return jax.lax.scan(partial(_step, z), picked(key, z, codes), None, length=steps)[0]


def _step(z: jax.Array, centers: jax.Array, _: None) -> tuple[jax.Array, None]:
    return lloyd(z, centers), None


def lloyd(z: jax.Array, centers: jax.Array) -> jax.Array:
    """Returns centers [K, D] moved to the mean of the vectors [N, D] that are nearest to each."""
    # The whole batch is here already, on every device.
    counts, totals = averages.sums(z, nearest(z, centers), len(centers), None)
    return jnp.where(counts[:, None] > 0, totals / jnp.maximum(counts, 1.0)[:, None], centers)
