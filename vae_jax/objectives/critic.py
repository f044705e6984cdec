"""Critics on codes: a classifier tells two samples apart, and its logit is the log of their density ratio."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.distributions import dense
from vae_jax.model import Metrics


def init(key: jax.Array, code_dim: int, hidden: Sequence[int]) -> dict[str, Any]:
    """Returns the parameters of a dense net from a code [D] to one logit."""
    # One output, a logit: the density ratio is read off it without passing through a sigmoid, which saturates.
    return dense.init(key, (code_dim, *hidden, 1))


def logit(params: Any, z: jax.Array) -> jax.Array:
    """Returns the critic's logit [B] of codes [B, D]: ln p_1(z) / p_0(z) where it is optimal."""
    return dense.apply(params, z, activation=partial(jax.nn.leaky_relu, negative_slope=0.2))[:, 0]


def cross_entropy(params: Any, ones: jax.Array, zeros: jax.Array) -> tuple[jax.Array, Metrics]:
    """Returns (a scalar of value 0 whose gradient trains the critic alone, `critic_loss` and `critic_accuracy`).

    Its gradient is that of 1/2 (E_ones[-ln D] + E_zeros[-ln(1 - D)]), ln 2 for a critic that knows nothing.

    Args:
      params: of the critic.
      ones: codes [N, D] of label 1.
      zeros: codes [M, D] of label 0.
    """
    # The codes are stopped: the encoder learns nothing from the critic's own loss.
    high, low = (logit(params, jax.lax.stop_gradient(z)) for z in (ones, zeros))
    # softplus(-l) is -ln sigmoid(l), finite for any logit. Each label has weight one half, whatever N and M.
    loss = 0.5 * (jnp.mean(jax.nn.softplus(-high)) + jnp.mean(jax.nn.softplus(low)))
    right = 0.5 * (jnp.mean(jnp.asarray(high > 0, jnp.float32)) + jnp.mean(jnp.asarray(low < 0, jnp.float32)))
    # The value cancels and the gradient stays: the logged loss stays that of the autoencoder.
    return loss - jax.lax.stop_gradient(loss), {"critic_loss": loss, "critic_accuracy": right}
