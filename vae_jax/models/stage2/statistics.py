"""Latents in units of their own spread: the generators of real vectors work at mean 0 and variance 1."""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Mean [n] and standard deviation [n] over the training split, traced arrays.
Stats = tuple[jax.Array, jax.Array]

# A dimension that hardly varies is not blown up beyond this share of the spread of all together.
_FLOOR = 1e-3


def normalized(z: jax.Array, stats: Stats | None) -> jax.Array:
    """Returns (z - mean) / scale, float32 [B, n]; see `scale` for dimensions that do not vary.

    Args:
      z: latents as vectors [B, n].
      stats: mean [n] and standard deviation [n]; None returns z.
    """
    # The difference in float32: bfloat16 would lose a small spread around a large mean.
    z = jnp.asarray(z, jnp.float32)
    return z if stats is None else (z - stats[0][None]) / scale(stats)[None]


def denormalized(v: jax.Array, stats: Stats | None) -> jax.Array:
    """Returns mean + scale v: the inverse of `normalized`."""
    return v if stats is None else stats[0][None] + scale(stats)[None] * v


def scale(stats: Stats) -> jax.Array:
    """Returns the divisors [n]: standard deviations, at least 1/1000 of their root mean square; 1 if all are 0."""
    # A share of the whole, not a number: latents have no unit of their own.
    std = jnp.asarray(stats[1], jnp.float32)
    floor = _FLOOR * jnp.sqrt(jnp.mean(jnp.square(std)))
    # Latents that are all constant pass unscaled: 0 / 0 would be NaN.
    return jnp.where(floor > 0.0, jnp.maximum(std, floor), 1.0)


def log_volume(stats: Stats | None) -> jax.Array:
    """Returns log |det d denormalized / dv|, by which log p of vectors differs from log p of latents."""
    # Nats. The map is diagonal, so that its determinant is the product of the scales.
    return jnp.zeros(()) if stats is None else jnp.sum(jnp.log(scale(stats)))
