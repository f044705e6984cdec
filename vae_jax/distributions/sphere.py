"""Densities over the unit sphere of R^m: von Mises-Fisher and uniform (arXiv:1804.00891)."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln

from vae_jax import prng
from vae_jax.distributions import bessel
from vae_jax.distributions.special import TINY

PROPOSALS = 64  # each is accepted with probability 0.65 or more; bounds the loop where an input is not finite
_X, _W = np.polynomial.legendre.leggauss(40)
NODES, WEIGHTS = (0.5 * (_X + 1.0)).astype(np.float32), (0.5 * _W).astype(np.float32)  # on (0, 1)


def log_area(m: int) -> jax.Array:
    """Returns ln |S^(m-1)| = ln 2 + (m/2) ln pi - ln Gamma(m/2).

    Example:
      >>> round(float(log_area(3)), 4)  # ln 4 pi
      2.531
    """
    return math.log(2.0) + 0.5 * m * math.log(math.pi) - gammaln(jnp.asarray(0.5 * m, jnp.float32))


class UniformSphere(NamedTuple):
    """The uniform density over the unit sphere of R^m. `like`: [1, m], whose length is m.

    Example:
      >>> round(float(UniformSphere(jnp.zeros((1, 3))).log_prob(jnp.array([[1.0, 0.0, 0.0]]))[0]), 4)  # -ln 4 pi
      -2.531
    """

    like: jax.Array

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Returns -ln |S^(m-1)| in nats [B], with respect to area."""
        return jnp.zeros(z.shape[0]) - log_area(z.shape[-1])


class VonMisesFisher(NamedTuple):
    """p(z) = exp(k mean.z) / Z(k) on the unit sphere of R^m.

    Attributes:
      mean: unit vectors [B, m].
      concentration: k [B, 1], 1e-3 or more.

    Example:
      >>> north = jnp.array([[1.0, 0.0, 0.0]])
      >>> q = VonMisesFisher(north, jnp.ones((1, 1)))
      >>> round(float(q.log_prob(north)[0]), 4)  # ln(k e^k / (4 pi sinh k)) at k = 1
      -1.6925
    """

    mean: jax.Array
    concentration: jax.Array

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns z on the sphere, [B, m], from one key per example; gradients reach mean and concentration.

        z = H (w, sqrt(1 - w^2) v): Wood's rejection sampler for w (Wood 1994), v uniform, H a reflection that takes the
        first axis to the mean. dw/dk is the implicit derivative (arXiv:1805.08498), so no score-function correction
        for the rejections is needed.
        """
        m, k = self.mean.shape[-1], self.concentration[:, 0]
        fixed = jax.lax.stop_gradient(k)
        below, across = jax.vmap(lambda key, k: _wood(key, k, m))(keys, fixed)
        # The value is that of the sampler; the gradient is added as a term that is 0.
        below = below - jax.lax.stop_gradient(_implicit_slope(m, fixed, below)) * (k - fixed)
        radius = jnp.sqrt(jnp.maximum(below * (2.0 - below), TINY))
        return _reflect(self.mean, jnp.concatenate([1.0 - below[:, None], radius[:, None] * across], -1))

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Returns log q(z) in nats [B] for unit vectors z, with respect to area.

        1 - mean.z = |z - mean|^2 / 2 keeps large k from canceling.
        """
        m, k = self.mean.shape[-1], self.concentration[:, 0]
        away = 0.5 * jnp.sum(jnp.square(z - self.mean), -1)
        return bessel.log_peak(m, k) - log_area(m) - k * away

    def sample_and_log_prob(self, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns z [B, m] and log q(z) [B]."""
        z = self.sample(keys)
        return z, self.log_prob(z)

    def mode(self) -> jax.Array:
        """Returns the mean direction, which is the mode [B, m]."""
        return self.mean

    def variance(self) -> jax.Array:
        """Returns Var[z_j] = (A/k) (1 - mean_j^2) + A' mean_j^2, A = E[mean.z], [B, m]."""
        m, k = self.mean.shape[-1], self.concentration
        square = jnp.square(self.mean)
        return bessel.mean_length(m, k) / k * (1.0 - square) + bessel.length_slope(m, k) * square


def sphere_kl(q: VonMisesFisher, p: UniformSphere) -> jax.Array:
    """Returns KL(q || p) in nats [B, 1]: k A + ln C(k) + ln |S^(m-1)|.

    Example:
      >>> q = VonMisesFisher(jnp.array([[1.0, 0.0, 0.0]]), jnp.ones((1, 1)))
      >>> round(float(sphere_kl(q, UniformSphere(jnp.zeros((1, 3))))[0, 0]), 4)  # coth 1 - 1 - ln sinh 1
      0.1516
    """
    del p
    return bessel.uniform_kl(q.mean.shape[-1], q.concentration)


def uniform_directions(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns uniform points of the unit sphere along the last axis of `shape`.

    Example:
      >>> points = uniform_directions(jax.random.key(0), (4, 3))
      >>> [round(float(length), 4) for length in jnp.linalg.norm(points, axis=-1)]
      [1.0, 1.0, 1.0, 1.0]
    """
    x = jax.random.normal(key, shape)
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), TINY)


def _wood(key: jax.Array, k: jax.Array, m: int) -> tuple[jax.Array, jax.Array]:
    """Returns (1 - w, v [m - 1]) of one example, w ~ p(w) prop. to exp(k w) (1 - w^2)^((m-3)/2), v uniform.

    One uniform point of the sphere gives both: (1 + its first coordinate)/2 is the beta variable of Wood's envelope,
    and the others point to v. Everything is in 1 - w, which is of order m/k.
    """
    ratio = (m - 1.0) / (2.0 * k + jnp.sqrt(jnp.square(2.0 * k) + (m - 1.0) ** 2))
    center = 2.0 * ratio / (1.0 + ratio)  # 1 - x0
    edge = 4.0 * ratio / jnp.square(1.0 + ratio)  # 1 - x0^2

    def propose(carry):
        i, _, _, _ = carry
        fresh = jax.random.fold_in(key, i)
        x = jax.random.normal(prng.site_key(fresh, "direction"), (m,))
        wait = jax.random.exponential(prng.site_key(fresh, "accept"))
        rest = jnp.maximum(jnp.linalg.norm(x[1:]), TINY)
        size = jnp.sqrt(jnp.square(x[0]) + jnp.square(rest))
        far = jnp.square(rest / size) / (2.0 * (1.0 + jnp.abs(x[0]) / size))  # the smaller of e and 1 - e, exactly
        e = jnp.where(x[0] < 0.0, far, 1.0 - far)
        below = 2.0 * ratio * e / (jnp.where(x[0] < 0.0, 1.0 - far, far) + ratio * e)
        excess = k * (center - below) + (m - 1.0) * jnp.log((center + (1.0 - center) * below) / edge)
        return i + 1, excess >= -wait, below, x[1:] / rest

    start = (jnp.int32(0), jnp.bool_(False), jnp.zeros(()), jnp.zeros(m - 1))
    _, _, below, across = jax.lax.while_loop(lambda c: (c[0] < PROPOSALS) & ~c[1], propose, start)
    return below, across


def _implicit_slope(m: int, k: jax.Array, below: jax.Array) -> jax.Array:
    """Returns dw/dk = -(dF/dk) / p(w) > 0, F the distribution function of w = 1 - below. All [B].

    = int (A - t) p(t) dt / p(w) from -1 to w; as the whole integral is 0, over whichever side of w the integrand has
    one sign. In t = cos(a) it is smooth for every m; beyond 7 standard deviations nothing is left of it.
    """
    deficit = bessel.mean_deficit(m, k)
    angle = 2.0 * jnp.arcsin(jnp.sqrt(jnp.clip(0.5 * below, 1e-16, 1.0)))
    reach = 7.0 / jnp.sqrt(k + m - 2.0)
    inner = below < deficit
    length = jnp.where(inner, jnp.minimum(angle, reach), jnp.minimum(math.pi - angle, reach))
    step = length[:, None] * NODES[None]
    a = angle[:, None] + jnp.where(inner[:, None], -step, step)
    sine, sine_a = jnp.maximum(jnp.sin(angle), 1e-7)[:, None], jnp.maximum(jnp.sin(a), TINY)
    # cos(a) - cos(angle) and 1 - cos(a), as products
    lift = 2.0 * jnp.sin(0.5 * (angle[:, None] + a)) * jnp.sin(0.5 * (angle[:, None] - a))
    density = sine * jnp.exp(k[:, None] * lift + (m - 2.0) * (jnp.log(sine_a) - jnp.log(sine)))
    moment = jnp.abs(deficit[:, None] - 2.0 * jnp.square(jnp.sin(0.5 * a)))
    return length * jnp.dot(moment * density, WEIGHTS, precision="highest")


def _reflect(mean: jax.Array, x: jax.Array) -> jax.Array:
    """Returns x [B, m] under an orthogonal map that takes the first axis to `mean`.

    The reflection in e1 + s mean, s the sign of mean_1, times -s: the vector reflected in is never short.
    """
    sign = jnp.where(mean[:, :1] >= 0.0, 1.0, -1.0)
    first = jnp.eye(1, mean.shape[-1])
    normal = first + sign * mean
    along = jnp.sum(normal * x, -1, keepdims=True) / (1.0 + jnp.abs(mean[:, :1]))  # 2 (n.x) / |n|^2
    return -sign * (x - along * normal)
