"""Inception-v3 as pure functions of its weights; it is not trained here."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.networks.inception import InceptionV3


def features(variables: dict[str, Any], images: jax.Array) -> jax.Array:
    """Returns pool3 features, float32 [B, 2048].

    Args:
      variables: `params` and `batch_stats`, of the shapes that `shapes` tells.
      images: [B, H, W, 1 or 3] in [0, 1].
    """
    return jnp.asarray(InceptionV3().apply(variables, images))


def shapes() -> dict[str, Any]:
    """Returns the weights' tree with shapes in place of arrays: `params`, and `batch_stats` for stored moments."""
    # Traced only: no weights are allocated. The size of the image does not enter their shapes.
    image = jax.ShapeDtypeStruct((1, 1, 1, 3), jnp.float32)
    return jax.eval_shape(InceptionV3().init, jax.random.key(0), image)
