"""Indices of codes whose coordinates have a few values each: numbers of mixed radix, the first digit counts fastest."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.quantizers.base import last


def number(digits: jax.Array, levels: tuple[int, ...]) -> jax.Array:
    """Returns the number of digits [..., n], int32 [...].

    Example:
      >>> import jax.numpy as jnp
      >>> number(jnp.array([2, 1]), (3, 4)).item()
      5
    """
    # Whole numbers throughout: in bfloat16, or in float32 from 2^24 on, neighbors would become one.
    return jnp.sum(digits.astype(jnp.int32) * last(_places(levels), digits), -1, dtype=jnp.int32)


def digits(number: jax.Array, levels: tuple[int, ...]) -> jax.Array:
    """Returns the digits of numbers, int32 [...] -> [..., n].

    Example:
      >>> import jax.numpy as jnp
      >>> digits(jnp.array(5), (3, 4)).tolist()
      [2, 1]
    """
    each = number[..., None]
    return each // last(_places(levels), each) % last(np.asarray(levels, np.int32), each)


def _places(levels: tuple[int, ...]) -> np.ndarray:
    """Returns the value of a step of each digit, int32 [n]."""
    return np.cumprod([1, *levels[:-1]]).astype(np.int32)
