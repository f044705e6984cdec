"""Dropout from one key per example, so that a mask depends on no layout of devices and no other example."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vae_jax import prng


def keep(keys: jax.Array, site: str, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """Returns a mask [B, *shape] that is True with probability 1 - rate.

    Args:
      keys: one key per example, [B]; many sites may use the same keys.
      site: name of the use; each has masks of its own.
      rate: probability of False, in [0, 1).
      shape: of one example's mask.

    Returns:
      bool [B, *shape]; an example's mask depends on its key and the site alone.
    """
    own = jax.vmap(lambda key: prng.site_key(key, site))(keys)
    return prng.uniform(own, shape) >= rate


def dropout(x: jax.Array, keys: jax.Array | None, site: str, rate: float) -> jax.Array:
    """Returns m x / (1 - rate), m ~ Bernoulli(1 - rate), which keeps the mean; x itself without keys or at rate 0.

    Args:
      x: [B, ...].
      keys: one key per example, [B]; None outside training.
      site: name of the use.
      rate: probability of a zero, in [0, 1).

    Returns:
      of the shape of x.
    """
    if keys is None or rate == 0.0:
        return x
    mask = keep(keys, site, rate, x.shape[1:])
    return jnp.where(mask, x / jnp.asarray(1.0 - rate, x.dtype), jnp.zeros((), x.dtype))
