"""Linear maps into the space where vectors are quantized, and back (arXiv:2110.04627, sec. 3.2)."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp


def init(key: jax.Array, features: int, inner: int) -> dict[str, Any]:
    """Returns the maps D -> n and n -> D; {} where n = D needs none.

    Args:
      key: consumed.
      features: length D of the vectors outside.
      inner: length n of those that are quantized.
    """
    if inner == features:
        return {}
    # Uniform of variance 1 / (3 rows), as dense layers of PyTorch and of the reference codes begin.
    into, out = jax.random.split(key)
    return {
        "in": {"w": uniform(into, features, inner), "b": jnp.zeros(inner)},
        "out": {"w": uniform(out, inner, features), "b": jnp.zeros(features)},
    }


def uniform(key: jax.Array, rows: int, columns: int) -> jax.Array:
    """Returns the first weights of a linear map, [rows, columns]."""
    limit = 1 / math.sqrt(rows)
    return jax.random.uniform(key, (rows, columns), minval=-limit, maxval=limit)


def into(params: Any, z: jax.Array) -> jax.Array:
    """Returns vectors [..., D] in the space of the codes, float32 [..., n]."""
    return _apply(params.get("in"), z)


def out(params: Any, q: jax.Array) -> jax.Array:
    """Returns codes [..., n] in the space of the vectors, float32 [..., D]."""
    return _apply(params.get("out"), q)


def _apply(layer: Any, x: jax.Array) -> jax.Array:
    # Float32 even where the networks around compute in bfloat16: an index must not depend on a rounding.
    x = x.astype(jnp.float32)
    if layer is None:
        return x
    flat = x.reshape(-1, x.shape[-1]) @ layer["w"] + layer["b"][None]
    return flat.reshape(*x.shape[:-1], -1)
