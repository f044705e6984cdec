"""Numbers that must be one per example: losses, and log densities of samples."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.errors import InputError


def weighted_mean(losses: jax.Array, weight: jax.Array | None) -> jax.Array:
    """Returns the mean of losses [B], each times its weight [B]; None weighs all alike.

    Weights have mean 1 over the training split, not over a batch: what is divided by is B, so that the gradient of a
    batch is an unbiased estimate of that of the whole weighted loss.
    """
    return jnp.mean(losses if weight is None else losses * weight)


def batch_mean(losses: jax.Array, size: int, what: str, weight: jax.Array | None = None) -> jax.Array:
    """Returns the mean of the losses of a batch, after a check that there is one per example.

    A scalar, or an axis of length 1, would be broadcast over the batch by whatever it is added to, in silence.

    Args:
      losses: [B] in nats.
      size: examples of the batch, B.
      what: names the function that returned the losses.
      weight: of each example, [B]; None weighs all alike.

    Returns:
      a scalar in nats.

    Raises:
      InputError: they are of another shape.
    """
    if jnp.shape(losses) != (size,):
        raise InputError(
            f"{what} returned the shape {jnp.shape(losses)} for {size} examples; return one loss per example, ({size},)"
        )
    return weighted_mean(losses, weight)


def per_example(log_prob: jax.Array, shape: tuple[int, ...], part: str, density: Any) -> jax.Array:
    """Returns log densities [K, B] or [N] as they are, after a check that there is one per example of each sample.

    Where a user's density sums over the batch too, K = 1 would broadcast its result over all examples, in silence.

    Args:
      log_prob: of samples [K, B, n], or of N rows, in nats.
      shape: (K, B) or (N,).
      part: option of the component that the density is of.
      density: what gave them.

    Returns:
      `log_prob`.

    Raises:
      InputError: they are of another shape.
    """
    if log_prob.shape != shape:
        # Samples were mapped over: without their axis, this is what `log_prob` itself returned.
        mapped = len(shape) - 1
        raise InputError(
            f"{part}: {type(density).__name__}.log_prob returned the shape {log_prob.shape[mapped:]} for {shape[-1]} "
            f"examples; return one log density per example, ({shape[-1]},)"
        )
    return log_prob
