"""Affine coupling layers (RealNVP): both directions are cheap."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.distributions import dense
from vae_jax.distributions.dense import Layers
from vae_jax.distributions.made import LOG_SCALE, bounded


def init(key: jax.Array, dim: int, context: int, layers: int, hidden: Sequence[int]) -> dict[str, Layers]:
    """Returns the nets of `layers` affine coupling layers, {"layer0": ...}, near the identity at the start.

    Args:
      key: consumed.
      dim: length of z, D.
      context: length of the context C, or 0.
      layers: number of coupling layers.
      hidden: widths of the hidden layers of each net.

    Returns:
      {"layer0": a net [D + C] -> [2 D], shift and log scale, ...}.

    Example:
      >>> sorted(init(jax.random.key(0), dim=2, context=0, layers=2, hidden=(4,)))
      ['layer0', 'layer1']
    """
    sizes = (dim + context, *hidden, 2 * dim)
    return {f"layer{i}": dense.init(jax.random.fold_in(key, i), sizes, 0.1) for i in range(layers)}


def _shift_and_scale(net: Layers, i: int, z: jax.Array, context: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Returns (shift, log scale) [B, D] of layer i from the dimensions it keeps, which have 0 in both."""
    moved = ((np.arange(z.shape[-1]) + i) % 2).astype(np.float32)[None]
    kept = z * (1.0 - moved)
    out = dense.apply(net, kept if context is None else jnp.concatenate([kept, context], -1))
    shift, raw = jnp.split(out, 2, axis=-1)
    return shift * moved, bounded(raw, LOG_SCALE) * moved


def forward(params: dict[str, Layers], context: jax.Array | None, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns RealNVP of z [B, D], and log|det| = sum s  (arXiv:1605.08803, eq. 7-8).

    Every second dimension moves, z_b <- z_b exp(s) + t with (s, t) of the others and of the context; the next layer
    moves the others.

    Args:
      params: as of `init`.
      context: [B, C], or None.
      z: [B, D].

    Example:
      >>> params = init(jax.random.key(0), dim=2, context=0, layers=2, hidden=(4,))
      >>> moved, log_det = forward(params, None, jnp.array([[1.0, -1.0]]))
      >>> back, log_det_back = inverse(params, None, moved)
      >>> [round(float(value), 4) for value in back[0]], round(abs(float(log_det[0] + log_det_back[0])), 4)
      ([1.0, -1.0], 0.0)
    """
    log_det = jnp.zeros(z.shape[:-1])
    for i in range(len(params)):
        shift, log_scale = _shift_and_scale(params[f"layer{i}"], i, z, context)
        z = z * jnp.exp(log_scale) + shift
        log_det = log_det + jnp.sum(log_scale, -1)
    return z, log_det


def inverse(params: dict[str, Layers], context: jax.Array | None, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns what `forward` maps to z, and log|det| of this inverse; as cheap as the forward map.

    Example:
      >>> params = init(jax.random.key(0), dim=2, context=0, layers=1, hidden=(4,))
      >>> z, _ = inverse(params, None, jnp.array([[1.0, -1.0]]))
      >>> float(z[0, 0])  # the first layer keeps it
      1.0
    """
    log_det = jnp.zeros(z.shape[:-1])
    for i in reversed(range(len(params))):
        shift, log_scale = _shift_and_scale(params[f"layer{i}"], i, z, context)
        z = (z - shift) * jnp.exp(-log_scale)
        log_det = log_det - jnp.sum(log_scale, -1)
    return z, log_det
