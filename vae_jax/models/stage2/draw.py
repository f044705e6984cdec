"""Draws of codes from logits: temperature, top-k, top-p."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vae_jax import prng
from vae_jax.models.stage2.base import Choices

IMPOSSIBLE = -1e30  # a logit that no softmax gives any probability; finite, so that differences of two are no NaN


def possible(logits: jax.Array, sizes: jax.Array) -> jax.Array:
    """Returns logits [..., K] without the codes that a place does not have.

    Args:
      logits: [..., K].
      sizes: number of codes at each place, int32, of the leading axes of `logits`.
    """
    # Sizes vary by place, so a mask [..., K]: a slice would have no static length.
    there = jnp.arange(logits.shape[-1]).reshape((1,) * sizes.ndim + (-1,)) < sizes[..., None]
    return jnp.where(there, logits, IMPOSSIBLE)


def filtered(logits: jax.Array, choices: Choices) -> jax.Array:
    """Returns the logits [B, K] that are drawn from: at the temperature, of the k most probable, of the top p.

    Args:
      logits: float32 [B, K].
      choices: `temperature`, which may be traced, `top_k`, `top_p`; of codes of equal probability at the edge all are
        kept.
    """
    # At 0 the most probable is taken, whatever this gives.
    logits = logits / jnp.maximum(choices.temperature, 1e-6)
    codes = logits.shape[-1]
    # 1. A threshold for each row keeps the shape [B, K].
    if 0 < choices.top_k < codes:
        least = jax.lax.top_k(logits, choices.top_k)[0][:, -1:]
        logits = jnp.where(logits < least, IMPOSSIBLE, logits)
    # 2. Shares of what top-k has left, most probable first.
    if choices.top_p < 1.0:
        descending = jax.lax.top_k(logits, codes)[0]
        share = jax.nn.softmax(descending, -1)
        # Kept: every code before which less than p was collected, hence always the first.
        before = jnp.cumsum(share, -1) - share
        least = jnp.min(jnp.where(before < choices.top_p, descending, jnp.inf), -1, keepdims=True)
        logits = jnp.where(logits < least, IMPOSSIBLE, logits)
    return logits


def codes(keys: jax.Array, logits: jax.Array, choices: Choices) -> jax.Array:
    """Returns one code of each row, int32 [B].

    Args:
      keys: one per row, [B].
      logits: float32 [B, K].
      choices: temperature 0 takes the most probable.
    """
    # "high": Gumbel noise of one float32 uniform ends at 16.6, above which rare codes would never be drawn.
    draw = jax.vmap(lambda key, row: jax.random.categorical(key, row, mode="high"))
    drawn = draw(keys, filtered(logits, choices))
    # Both are computed: Python cannot branch on a traced temperature.
    return jnp.where(choices.temperature > 0, drawn, jnp.argmax(logits, -1)).astype(jnp.int32)


def everywhere(keys: jax.Array, logits: jax.Array, choices: Choices) -> jax.Array:
    """Returns one code at each place, drawn independently, int32 [B, n].

    Args:
      keys: one per example, [B].
      logits: float32 [B, n, K].
      choices: as of `codes`.
    """
    # Keys [n, B], by place: the noise of a place is its own.
    own = prng.sample_keys(keys, jnp.arange(logits.shape[1]))
    return jax.vmap(lambda keys, row: codes(keys, row, choices), in_axes=(0, 1), out_axes=1)(own, logits)


def at_random(keys: jax.Array, count: jax.Array, n: int) -> jax.Array:
    """Returns a mask that is True at `count` of n places, each set of places as likely as any other, bool [B, n].

    Args:
      keys: one per example, [B].
      count: int32 [B].
      n: number of places.
    """
    # Uniform scores put places in random order. The count may be traced: no shape depends on it.
    return lowest(prng.uniform(keys, (n,)), count)


def lowest(scores: jax.Array, count: jax.Array) -> jax.Array:
    """Returns where the `count` lowest scores of each row are: float32 [B, n] and int32 [B] -> bool [B, n]."""
    # Ranks, not a threshold: of equal scores the first are taken, and the count is exact.
    return jnp.argsort(jnp.argsort(scores, -1), -1) < count[:, None]
