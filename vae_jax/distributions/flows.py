"""Normalizing flows: a Gaussian behind an invertible map; planar and radial maps with their inverses.

A map is a plain function (parameters, z [B, D]) -> (z' [B, D], log|det dz'/dz| [B]); so is its inverse.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vae_jax.distributions.gaussian import DiagGaussian
from vae_jax.distributions.made import bounded

Map = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


class Flow(NamedTuple):
    """z = f(eps), eps ~ base: log p(z) = log base(eps) - log|det df/deps|  (arXiv:1505.05770, eq. 5).

    Attributes:
      base: Gaussian [B, D] or [1, D].
      forward: f as a `jax.tree_util.Partial` of its parameters, so that the whole distribution is a pytree.
      inverse: f^-1, likewise.

    Example:
      >>> base = DiagGaussian(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
      >>> log_2 = jnp.full((1,), math.log(2.0))
      >>> p = Flow(base, lambda eps: (2.0 * eps, log_2), lambda z: (z / 2.0, -log_2))
      >>> round(float(p.log_prob(jnp.zeros((1, 1)))[0]), 4)  # ln N(0; 0, 2^2)
      -1.6121
    """

    base: DiagGaussian
    forward: Map
    inverse: Map

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns z [B, D], from one key per example."""
        return self.forward(self.base.sample(keys))[0]

    def sample_and_log_prob(self, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns z [B, D] and log p(z) [B] in nats; nothing is inverted."""
        eps, log_base = self.base.sample_and_log_prob(keys)
        z, log_det = self.forward(eps)
        return z, log_base - log_det

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Returns log p(z) in nats [B], by the inverse map."""
        eps, log_det = self.inverse(z)
        return self.base.log_prob(eps) + log_det

    def mode(self) -> jax.Array:
        """Returns f(mean of the base) [B, D], which stands for the distribution; it is not its mode in general."""
        return self.forward(self.base.mean)[0]

    def variance(self) -> jax.Array:
        """Returns the variance of the base [B, D]; that of z has no closed form."""
        return self.base.variance()


class Planar(NamedTuple):
    """Planar layers of each example, all satisfying w.u > -1. `w`, `u`: [B, L, D]; `b`, `along` = w.u: [B, L].

    Example:
      >>> e = jnp.array([[[1.0, 0.0]]])
      >>> layer = Planar(w=e, u=e, b=jnp.zeros((1, 1)), along=jnp.ones((1, 1)))
      >>> z, log_det = planar_forward(layer, jnp.zeros((1, 2)))
      >>> z.tolist(), round(float(log_det[0]), 4)  # ln(1 + w.u) at 0
      ([[0.0, 0.0]], 0.6931)
    """

    w: jax.Array
    u: jax.Array
    b: jax.Array
    along: jax.Array


def planar(w: jax.Array, u: jax.Array, b: jax.Array) -> Planar:
    """Returns invertible planar layers from free numbers w, u [B, L, D] and b [B, L].

    u is moved along w until w.u = m(w.u) > -1 (arXiv:1505.05770, app. A.1), with m(x) = softplus(x + c) - 1 + 1e-3 and
    c such that m(0) = 0; the paper has c = 0, under which w -> 0 sends u to infinity.

    Example:
      >>> layer = planar(jnp.ones((1, 1, 2)), -5.0 * jnp.ones((1, 1, 2)), jnp.zeros((1, 1)))
      >>> bool(jnp.all(layer.along > -1.0))  # invertible, though w.u of the free numbers is -10
      True
    """
    floor, tiny, greatest = 1e-3, 1e-8, 10.0
    # Bounded u and the floor together outweigh `tiny`: w.u > -1 holds for every w, 0 and near it included.
    u = bounded(u, greatest)
    inner, square = jnp.sum(w * u, -1), jnp.sum(jnp.square(w), -1)
    wanted = jax.nn.softplus(inner + math.log(math.expm1(1.0 - floor))) - 1.0 + floor
    u = u + ((wanted - inner) / (square + tiny))[..., None] * w
    # Not w.u of the new u, which cancels where w is large.
    along = (tiny * inner + square * wanted) / (square + tiny)
    return Planar(w, u, b, along)


def planar_forward(params: Planar, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns z <- z + u tanh(w.z + b), layer by layer, and log|det| = sum log(1 + w.u sech^2(w.z + b)).

    Example:
      >>> layer = planar(jnp.ones((1, 1, 2)), jnp.zeros((1, 1, 2)), jnp.zeros((1, 1)))
      >>> planar_forward(layer, jnp.array([[1.0, 2.0]]))[0].tolist()  # u = 0 moves nothing
      [[1.0, 2.0]]
    """
    log_det = jnp.zeros(z.shape[:-1])
    for i in range(params.b.shape[-1]):
        w, u, b, along = (leaf[:, i] for leaf in params)
        bend = jnp.tanh(jnp.sum(w * z, -1) + b)
        z = z + u * bend[:, None]
        log_det = log_det + jnp.log1p(along * (1.0 - jnp.square(bend)))
    return z, log_det


def planar_inverse(params: Planar, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns what `planar_forward` maps to z, and log|det| of this inverse.

    Along w the layer is the increasing function a + w.u tanh(a + b) of a = w.z, which is inverted by bisection.

    Example:
      >>> layer = planar(jnp.ones((1, 1, 2)), jnp.ones((1, 1, 2)), jnp.zeros((1, 1)))
      >>> moved, _ = planar_forward(layer, jnp.array([[1.0, 2.0]]))
      >>> [round(float(value), 4) for value in planar_inverse(layer, moved)[0][0]]
      [1.0, 2.0]
    """
    log_det = jnp.zeros(z.shape[:-1])
    for i in reversed(range(params.b.shape[-1])):
        w, u, b, along = (leaf[:, i] for leaf in params)
        bend = jnp.tanh(_root(jnp.sum(w * z, -1), b, along) + b)
        z = z - u * bend[:, None]
        log_det = log_det - jnp.log1p(along * (1.0 - jnp.square(bend)))
    return z, log_det


def _root(target: jax.Array, b: jax.Array, along: jax.Array) -> jax.Array:
    """Returns a [B] with a + along * tanh(a + b) = target, with its derivatives: along > -1."""

    def halve(_: int, edges: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = edges
        middle = 0.5 * (low + high)
        below = middle + along * jnp.tanh(middle + b) < target
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    edges = jax.lax.fori_loop(0, 40, halve, (target - jnp.abs(along), target + jnp.abs(along)))
    a = jax.lax.stop_gradient(0.5 * (edges[0] + edges[1]))
    # One Newton step from the root: its value is the root, its derivative that of the implicit function.
    bend = jnp.tanh(a + b)
    slope = 1.0 + along * (1.0 - jnp.square(bend))
    return a + (target - a - along * bend) / slope


class Radial(NamedTuple):
    """Radial layers of each example. `center`: [B, L, D]; `alpha`, `inner`: [B, L], positive, beta = inner - alpha.

    Example:
      >>> layer = Radial(jnp.zeros((1, 1, 2)), alpha=jnp.ones((1, 1)), inner=jnp.full((1, 1), 2.0))
      >>> z, log_det = radial_forward(layer, jnp.array([[3.0, 4.0]]))  # r = 5: stretched by 7 / 6
      >>> round(float(z[0, 0]), 4), round(float(log_det[0]), 4)  # ln(7 / 6) + ln(37 / 36)
      (3.5, 0.1815)
    """

    center: jax.Array
    alpha: jax.Array
    inner: jax.Array


def radial(center: jax.Array, alpha: jax.Array, beta: jax.Array) -> Radial:
    """Returns invertible radial layers from free numbers: alpha = softplus(.), beta = softplus(.) - alpha > -alpha.

    Example:
      >>> layer = radial(jnp.zeros((1, 1, 2)), jnp.zeros((1, 1)), jnp.full((1, 1), -9.0))
      >>> bool(jnp.all(layer.inner > 0.0))  # beta > -alpha: invertible
      True
    """
    return Radial(center, jax.nn.softplus(alpha) + 1e-3, jax.nn.softplus(beta) + 1e-3)


def _radius(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.square(x), -1) + 1e-12)  # differentiable at the center too


def _radial_log_det(r: jax.Array, alpha: jax.Array, inner: jax.Array, dim: int) -> jax.Array:
    # 1 + beta h = (r + inner) / (r + alpha), 1 + beta h + beta h' r = (r^2 + 2 alpha r + alpha inner) / (r + alpha)^2:
    # quotients of sums of positive numbers.
    around = jnp.log(r + inner) - jnp.log(r + alpha)
    outwards = jnp.log(r * (r + 2.0 * alpha) + alpha * inner) - 2.0 * jnp.log(r + alpha)
    return (dim - 1) * around + outwards


def radial_forward(params: Radial, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns z <- z + beta h (z - center), h = 1 / (alpha + r), r = |z - center|, layer by layer, and log|det|.

    log|det| = (D - 1) log(1 + beta h) + log(1 + beta h + beta h' r)   (arXiv:1505.05770, eq. 14).

    Example:
      >>> layer = radial(jnp.zeros((1, 1, 2)), jnp.zeros((1, 1)), jnp.zeros((1, 1)))
      >>> radial_forward(layer, jnp.array([[3.0, 4.0]]))[0].tolist()  # beta = 0 moves nothing
      [[3.0, 4.0]]
    """
    log_det = jnp.zeros(z.shape[:-1])
    for i in range(params.alpha.shape[-1]):
        center, alpha, inner = (leaf[:, i] for leaf in params)
        r = _radius(z - center)
        log_det = log_det + _radial_log_det(r, alpha, inner, z.shape[-1])
        z = center + (z - center) * ((r + inner) / (r + alpha))[:, None]
    return z, log_det


def radial_inverse(params: Radial, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns what `radial_forward` maps to z, and log|det| of this inverse: a quadratic equation for r in each layer.

    Example:
      >>> layer = radial(jnp.zeros((1, 1, 2)), jnp.zeros((1, 1)), jnp.ones((1, 1)))
      >>> moved, _ = radial_forward(layer, jnp.array([[3.0, 4.0]]))
      >>> [round(float(value), 4) for value in radial_inverse(layer, moved)[0][0]]
      [3.0, 4.0]
    """
    log_det = jnp.zeros(z.shape[:-1])
    for i in reversed(range(params.alpha.shape[-1])):
        center, alpha, inner = (leaf[:, i] for leaf in params)
        out = _radius(z - center)
        # r (r + inner) / (r + alpha) = out; the root by whichever form does not cancel.
        half = out - inner
        root = jnp.sqrt(jnp.square(half) + 4.0 * alpha * out)
        outside = half > 0.0
        r = jnp.where(outside, 0.5 * (half + root), 2.0 * alpha * out / jnp.where(outside, 1.0, root - half))
        log_det = log_det - _radial_log_det(r, alpha, inner, z.shape[-1])
        z = center + (z - center) * ((r + alpha) / (r + inner))[:, None]
    return z, log_det
