"""The importance-weighted bound on log p(x): one loop for every model that has such weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

# Examples decoded at a time, and their entries together: 4000 images of 28 x 28.
BOUND_ROWS, BOUND_SIZE = 4000, 4000 * 28 * 28


def importance_bound(log_weights: Callable[[jax.Array], jax.Array], b: int, k: int, width: int = 1) -> jax.Array:
    """Returns log 1/k sum_i w_i in nats [B], w_i = p(x, z_i) / q(z_i|x), in bounded memory.

    Args:
      log_weights: numbers int32 [width] of samples -> log w [width, B]. The noise of a sample may depend on its number
        alone, so that the bound does not depend on `width`.
      b: number of examples, B.
      k: importance samples per example.
      width: samples drawn at a time.

    Reference: arXiv:1509.00519, eq. 8.

    Returns:
      at most log p(x) in expectation, whatever the `width`.
    """
    steps = -(-k // width)

    # 1. One step: log w of `width` samples of all examples, [width, B].
    def body(carry: jax.Array, first: jax.Array) -> tuple[jax.Array, None]:
        number = first + jnp.arange(width)
        # The last step may draw more samples than are left: these do not count.
        log_w = jnp.where((number < k)[:, None], log_weights(number), -jnp.inf)
        # One after the other, so that the sum too is the same whatever the width.
        return jax.lax.scan(lambda total, w: (jnp.logaddexp(total, w), None), carry, log_w)

    # 2. A running log-sum-exp [B], from -inf, the sum of no weights: memory does not grow with k.
    total, _ = jax.lax.scan(body, jnp.full(b, -jnp.inf), width * jnp.arange(steps))
    return total - jnp.log(k)


def samples_at_once(shape: tuple[int, ...]) -> int:
    """Returns how many samples of a batch [B, ...] the bound draws at a time: few enough to bound its memory."""
    if not isinstance(shape[0], int):  # a symbolic batch of `jax.export`
        return 1
    # By the number of rows, or by their entries where an example is larger than 28 x 28.
    return max(1, min(BOUND_ROWS, BOUND_SIZE // math.prod(shape[1:])) // shape[0])


def repeat(x: jax.Array, k: int) -> jax.Array:
    """Returns x [B, ...] k times, one whole batch after the other: [k * B, ...]."""
    # Sample-major: `reshape(k, b)` of [k * B] results gives the samples back.
    return x if k == 1 else jnp.broadcast_to(x, (k, *x.shape)).reshape(k * x.shape[0], *x.shape[1:])
