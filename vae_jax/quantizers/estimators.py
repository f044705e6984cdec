"""Gradients through a quantizer, whose own is zero almost everywhere."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from vae_jax.distributions.concrete import straight_through

Estimator = Literal["straight-through", "rotation"]


def rotated(z: jax.Array, q: jax.Array) -> jax.Array:
    """Returns the values of q, as a rotation and rescaling of z that are held constant (arXiv:2410.06424, eq. 4).

        out = (|q| / |z|) R z,   R = I - 2 r r^T + 2 q' z'^T,   z' = z / |z|, q' = q / |q|, r = (z' + q') / |z' + q'|

    R turns z to the direction of q, and so it turns the gradient: the angle between gradient and q is kept as that
    between gradient and z. Where z or q is 0 there is no direction, and the gradient is that of straight-through.

    Args:
      z: vectors [..., D].
      q: what stands for them [..., D].
    """
    fixed_z, fixed_q = jax.lax.stop_gradient(z), jax.lax.stop_gradient(q)
    norm_z = jnp.linalg.norm(fixed_z, axis=-1, keepdims=True)
    norm_q = jnp.linalg.norm(fixed_q, axis=-1, keepdims=True)
    # Floors in place of a division by 0: what they make is not used (`known` below), but its gradient must be finite.
    unit_z, unit_q = fixed_z / jnp.maximum(norm_z, 1e-12), fixed_q / jnp.maximum(norm_q, 1e-12)
    # R is two reflections in a row: at the half-way direction, then at that of q.
    half = unit_z + unit_q
    length = jnp.linalg.norm(half, axis=-1, keepdims=True)
    # Opposite vectors have no half-way direction either.
    known = (norm_z > 1e-12) & (norm_q > 1e-12) & (length > 1e-6)
    r = half / jnp.maximum(length, 1e-6)

    def along(direction: jax.Array) -> jax.Array:
        return jnp.sum(z * direction, -1, keepdims=True)

    # Everything but z is constant, so that the map is linear in z and its Jacobian is (|q| / |z|) R.
    turned = z - 2 * along(r) * r + 2 * along(unit_z) * unit_q
    out = norm_q / jnp.maximum(norm_z, 1e-12) * turned
    # The values are those of q exactly, so that a decoder sees the entries that `embed` gives.
    return jnp.where(known, straight_through(q, out), straight_through(q, z))


def estimate(kind: Estimator, z: jax.Array, q: jax.Array) -> jax.Array:
    """Returns the values of q with the gradient that `kind` gives to z."""
    return rotated(z, q) if kind == "rotation" else straight_through(q, z)
