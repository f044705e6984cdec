"""Moving averages of how often each entry is chosen, and of what chooses it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from vae_jax import collectives
from vae_jax.quantizers import shards


def init(codes: int, features: int) -> dict[str, Any]:
    """Returns averages of nothing yet: `steps`, `size` [K] and `total` [K, D]."""
    return {"steps": jnp.zeros((), jnp.int32), "size": jnp.zeros(codes), "total": jnp.zeros((codes, features))}


def sums(z: jax.Array, index: jax.Array, codes: int, axis_name: str | None) -> tuple[jax.Array, jax.Array]:
    """Returns how many vectors chose each entry [K], and their sum [K, D], over the global batch.

    Args:
      z: vectors [N, D].
      index: which entry each one chose, int32 [N].
      codes: number of entries K.
      axis_name: mapped axis of the devices; None in the global view.

    Returns:
      float32 [K] and [K, D].
    """
    return collectives.psum(shards.sums(z, index, codes), axis_name)


def update(state: Any, counts: jax.Array, totals: jax.Array, decay: float) -> dict[str, Any]:
    """Returns the averages after one more batch: m <- decay m + (1 - decay) (counts, totals).

    Args:
      state: as of `init`.
      counts: of the batch, as of `sums`.
      totals: of the batch, as of `sums`.
      decay: of the averages.

    Returns:
      of the structure of `state`.
    """

    def moved(old: jax.Array, new: jax.Array) -> jax.Array:
        return decay * old + (1 - decay) * new

    return {
        "steps": state["steps"] + 1,
        "size": moved(state["size"], counts),
        "total": moved(state["total"], totals),
    }


def sizes(state: Any, decay: float) -> jax.Array:
    """Returns the average count of each entry per batch [K], without the bias of the start from 0."""
    return state["size"] / _share(state, decay)


def _share(state: Any, decay: float) -> jax.Array:
    """Returns 1 - decay^steps, the sum of the weights so far."""
    # Of float32 powers: decay^steps reaches 0 without a fault, when no correction is left.
    steps = state["steps"].astype(jnp.float32)
    # 1 before the first batch: the averages are 0 then, whatever they are divided by.
    return jnp.where(steps > 0, 1 - jnp.power(jnp.float32(decay), steps), 1.0)


def means(state: Any, codebook: jax.Array, decay: float, epsilon: float = 0.0) -> jax.Array:
    """Returns the average vector of each entry [K, D]; an entry that was never chosen stays where it is.

    Args:
      state: as of `init`.
      codebook: the entries as they are [K, D].
      decay: of the averages.
      epsilon: of the Laplace smoothing of the counts, n_k <- (n_k + epsilon) / (n + K epsilon) n; 0 for none.

    Returns:
      float32 [K, D].
    """
    share = _share(state, decay)
    size, total = state["size"] / share, state["total"] / share
    n = jnp.sum(size)
    smoothed = (size + epsilon) / (n + len(size) * epsilon) * n
    # An average that has all but decayed holds rounding alone.
    known = size > 1e-12
    return jnp.where(known[:, None], total / jnp.where(known, smoothed, 1.0)[:, None], codebook)


def reset(state: Any, which: jax.Array, vectors: jax.Array, count: float, decay: float) -> dict[str, Any]:
    """Returns averages in which some entries were chosen `count` times per batch, by vectors of their own.

    Args:
      state: as of `init`.
      which: the entries, bool [K].
      vectors: what each of them is now [K, D].
      count: average count that they get.
      decay: of the averages.

    Returns:
      of the structure of `state`.
    """
    # Averages are kept with the bias of the start; a count without it is put back under it.
    size = count * _share(state, decay)
    return {
        "steps": state["steps"],
        "size": jnp.where(which, size, state["size"]),
        "total": jnp.where(which[:, None], size * vectors, state["total"]),
    }
