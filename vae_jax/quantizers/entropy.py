"""Entropies of soft choices among entries: how sure each is, and how even all are together."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vae_jax import collectives
from vae_jax.model import Context
from vae_jax.quantizers.base import last


def entropy(p: jax.Array) -> jax.Array:
    """Returns H(p) = -sum_k p_k ln p_k over the last axis, in nats [...]; 0 ln 0 is 0, with a finite gradient."""
    # The inner `where` keeps the gradient finite where p is 0: the outer one alone would multiply 0 by infinity.
    return -jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1.0)), 0.0), -1)


def gap(p: jax.Array, ctx: Context | None, diversity: float = 1.0) -> jax.Array:
    """Returns H(p_i) - diversity H(mean_i p_i) of choices p [..., K], in nats [...].

    The mean is that of the global batch, so that its entropy does not depend on the devices.

    Args:
      p: probabilities of each vector's entries [..., K].
      ctx: of the step; None is one device.
      diversity: weight of the entropy of the mean.
    """
    # The mean over devices comes before its entropy: the mean of their entropies would depend on the division.
    axis_name = None if ctx is None else ctx.axis_name
    mean = collectives.pmean(jnp.mean(p.reshape(-1, p.shape[-1]), 0), axis_name)
    return entropy(p) - diversity * entropy(mean)


def entropy_gap(z: jax.Array, book: jax.Array, ctx: Context | None, temperature: float = 1.0) -> jax.Array:
    """Returns `gap` of p_k = softmax_k(-|z - e_k|^2 / temperature), in nats [...] (arXiv:2310.05737, eq. 5).

    Args:
      z: vectors [..., D].
      book: entries [K, D].
      ctx: of the step.
      temperature: of the choice.

    Returns:
      float32 [...].
    """
    # The whole matrix of distances: a soft choice has a gradient to every entry.
    products = z @ book.T
    distances = last(jnp.sum(jnp.square(book), -1), products) - 2 * products
    return gap(jax.nn.softmax(-distances / temperature, -1), ctx)
