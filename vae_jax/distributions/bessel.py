"""The Bessel functions of the von Mises-Fisher distribution in R^m, for any concentration, in float32.

I_v(x) over- and underflows, so nothing here is I_v itself: the ratio A = I_{m/2}(k) / I_{m/2-1}(k), as 1 - A, and
ln 0F1(; m/2; k^2/4), which is ln E[e^(k w)] for w a coordinate of a uniform point of the sphere. Both start from the
uniform (Debye) expansion at order m/2 - 1 + STEPS, where it is exact to float32, and come down by the recurrence
I_{v-1} = (2 v / x) I_v + I_{v+1} in its stable direction.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from vae_jax.distributions.special import stirling_remainder

STEPS = 16
SMALL = 5.0  # below: differences are taken from 0, above: from k


def _debye(order: float, k: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns (1 - I_{v+1}/I_v, ln F, k - ln F) at x = k for v = order, F = 0F1(; v+1; k^2/4) (DLMF 10.41)."""
    z = k / order
    s = jnp.sqrt(1.0 + jnp.square(z))
    t, inverse = 1.0 / s, 1.0 / order
    t2 = jnp.square(t)
    u1 = t * (3.0 - 5.0 * t2) / 24.0
    u2 = t2 * (81.0 - t2 * (462.0 - 385.0 * t2)) / 1152.0
    u3 = t * t2 * (30375.0 - t2 * (369603.0 - t2 * (765765.0 - 425425.0 * t2))) / 414720.0
    v1 = t * (-9.0 + 7.0 * t2) / 24.0
    v2 = t2 * (-135.0 + t2 * (594.0 - 455.0 * t2)) / 1152.0
    v3 = t * t2 * (-42525.0 + t2 * (451737.0 - t2 * (883575.0 - 475475.0 * t2))) / 414720.0
    # Sums less their leading 1.
    u = inverse * (u1 + inverse * (u2 + inverse * u3))
    v = inverse * (v1 + inverse * (v2 + inverse * v3))
    # I_{v+1}/I_v = I'_v/I_v - v/x, with I'_v/I_v = (s/z) (1 + v)/(1 + u).
    above = jnp.square(z) / (1.0 + s)  # s - 1
    gap = (z + above) / (z + s)  # 1 + z - s
    deficit = (gap - s * (v - u) / (1.0 + u)) / z
    rest = stirling_remainder(jnp.asarray(order, jnp.float32)) + jnp.log1p(u) - 0.5 * jnp.log(s)
    logs = order * jnp.log1p(0.5 * above)
    log_f = order * above - logs + rest
    # For small k the expansion ends in differences of rounded constants; two terms of the power series do not.
    power = jnp.square(jnp.minimum(k, order)) / (4.0 * (order + 1.0))
    series = power * (1.0 - power / (2.0 * (order + 2.0)))
    return deficit, jnp.where(z < 0.1, series, log_f), order * gap + logs - rest


def _descend(m: int, k: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """Returns (1 - A, A, dA/dk, ln F, k - ln F) of order m/2 - 1."""
    order = 0.5 * m - 1.0
    (deficit, log_f, gap), (slope, _, _) = jax.jvp(lambda k: _debye(order + STEPS, k), (k,), (jnp.ones_like(k),))

    def step(i: jax.Array, carry):
        deficit, _, slope, log_f, gap = carry
        c = 2.0 * (order + STEPS - i) / k
        below = c + 1.0 - deficit
        growth = jnp.log1p((1.0 - deficit) / c)  # ln F_v - ln F_{v+1}
        length = 1.0 / below
        return (c - deficit) / below, length, jnp.square(length) * (c / k - slope), log_f + growth, gap - growth

    return jax.lax.fori_loop(0, STEPS, step, (deficit, 1.0 - deficit, -slope, log_f, gap))


def mean_deficit(m: int, k: jax.Array) -> jax.Array:
    """Returns 1 - I_{m/2}(k) / I_{m/2-1}(k), elementwise; to float32 also where the ratio rounds to 1.

    Args:
      m: dimension of the space, 2 or more.
      k: concentrations, 1e-3 or more.

    Example:
      >>> round(float(mean_deficit(3, jnp.array(1.0))), 4)  # in R^3 the ratio is coth k - 1/k
      0.687
    """
    return _descend(m, k)[0]


def mean_length(m: int, k: jax.Array) -> jax.Array:
    """Returns A = I_{m/2}(k) / I_{m/2-1}(k), the length of the mean vector, elementwise.

    Example:
      >>> round(float(mean_length(3, jnp.array(1.0))), 4)  # coth 1 - 1
      0.313
    """
    return _descend(m, k)[1]


def length_slope(m: int, k: jax.Array) -> jax.Array:
    """Returns dA/dk, the variance of a coordinate along the mean direction, elementwise.

    By the recurrence, not as 1 - A^2 - (m - 1) A / k, in which everything cancels for large k.

    Example:
      >>> round(float(length_slope(3, jnp.array(1.0))), 4)  # 1 - 1 / sinh^2(1)
      0.2759
    """
    return _descend(m, k)[2]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def log_peak(m: int, k: jax.Array) -> jax.Array:
    """Returns k - ln E_U[e^(k w)] >= 0 in nats, elementwise: log of the vMF density at its mode over the uniform one.

    Its derivative is 1 - A.

    Example:
      >>> round(float(log_peak(3, jnp.array(1.0))), 4)  # 1 - ln sinh 1
      0.8386
    """
    return _descend(m, k)[4]


@log_peak.defjvp
def _log_peak_jvp(m, primals, tangents):
    (k,), (dk,) = primals, tangents
    return log_peak(m, k), mean_deficit(m, k) * dk


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def uniform_kl(m: int, k: jax.Array) -> jax.Array:
    """Returns KL(vMF(mu, k) || U(S^(m-1))) = k A - ln 0F1(; m/2; k^2/4) in nats, elementwise; its derivative is k A'.

    Args:
      m: dimension of the space, 2 or more.
      k: concentrations, 1e-3 or more.

    Example:
      >>> round(float(uniform_kl(3, jnp.array(1.0))), 4)  # coth 1 - 1 - ln sinh 1
      0.1516
    """
    deficit, length, _, log_f, gap = _descend(m, k)
    return jnp.where(k < SMALL, k * length - log_f, gap - k * deficit)


@uniform_kl.defjvp
def _uniform_kl_jvp(m, primals, tangents):
    (k,), (dk,) = primals, tangents
    return uniform_kl(m, k), k * length_slope(m, k) * dk
