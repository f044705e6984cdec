"""Special functions in float32: gamma functions without cancellation, logs of differences, positive parameters."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
EULER = 0.5772156649015329
LARGE = 8.0  # from here on three terms of the Stirling series reach float32
TINY = 1e-30  # the smallest positive code: logs of it are finite, products of two are not yet 0
BELOW_ONE = 1.0 - 2.0**-24  # the largest float32 below 1


def positive(raw: jax.Array, floor: float) -> jax.Array:
    """Returns softplus(raw + ln(e - 1)) + floor: 1 + floor at 0, linear above, never under `floor`.

    Example:
      >>> round(float(positive(jnp.array(0.0), floor=0.25)), 4)
      1.25
    """
    return jax.nn.softplus(raw + math.log(math.e - 1.0)) + floor


def log_beyond(x: jax.Array, low: float, high: float) -> jax.Array:
    """Returns x where low <= x <= high, bit for bit, and past either end that end -+ ln(1 + distance), elementwise.

    For numbers that are exponentiated. Unlike a clip it leaves a gradient, 1 / (1 + distance), so that what strayed
    outside is led back; unlike a tanh it changes nothing inside.

    Example:
      >>> float(log_beyond(jnp.array(3.0), 0.0, 5.0))
      3.0
      >>> round(float(log_beyond(jnp.array(9.0), 0.0, 5.0)), 4)  # 5 + ln(1 + 4)
      6.6094
    """
    above, below = jnp.maximum(x - high, 0.0), jnp.maximum(low - x, 0.0)
    return jnp.clip(x, low, high) + jnp.log1p(above) - jnp.log1p(below)


def stirling_remainder(x: jax.Array) -> jax.Array:
    """Returns R(x) = ln Gamma(x) - [(x - 1/2) ln x - x + ln(2 pi) / 2], x > 0, elementwise.

    For large x, ln Gamma itself is huge and differences of it are rounding; R is 1/(12 x) - ...

    Example:
      >>> round(float(stirling_remainder(jnp.array(1.0))), 4)  # 1 - ln(2 pi) / 2
      0.0811
    """
    small, inverse = jnp.minimum(x, LARGE), 1.0 / jnp.maximum(x, LARGE)
    square = jnp.square(inverse)
    series = inverse * (1 / 12 - square * (1 / 360 - square / 1260))
    direct = gammaln(small) - (small - 0.5) * jnp.log(small) + small - HALF_LOG_2PI
    return jnp.where(x < LARGE, direct, series)


def digamma_remainder(x: jax.Array) -> jax.Array:
    """Returns psi(x) - ln x, x > 0, elementwise; -1/(2 x) - ... for large x.

    Example:
      >>> round(float(digamma_remainder(jnp.array(1.0))), 4)  # minus Euler's constant
      -0.5772
    """
    small, inverse = jnp.minimum(x, LARGE), 1.0 / jnp.maximum(x, LARGE)
    square = jnp.square(inverse)
    series = -0.5 * inverse - square * (1 / 12 - square * (1 / 120 - square / 252))
    return jnp.where(x < LARGE, digamma(small) - jnp.log(small), series)


def log_beta(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns ln B(a, b) = ln Gamma(a) + ln Gamma(b) - ln Gamma(a + b), elementwise.

    = ln(2 pi)/2 - (a - 1/2) ln(1 + b/a) - (b - 1/2) ln(1 + a/b) - ln(a + b)/2 + R(a) + R(b) - R(a + b).

    Example:
      >>> round(float(log_beta(jnp.array(1.0), jnp.array(2.0))), 4)  # ln 1/2
      -0.6931
    """
    total = a + b
    rest = stirling_remainder(a) + stirling_remainder(b) - stirling_remainder(total)
    mixed = (a - 0.5) * jnp.log1p(b / a) + (b - 0.5) * jnp.log1p(a / b) + 0.5 * jnp.log(total)
    return HALF_LOG_2PI - mixed + rest


def log1mexp(x: jax.Array) -> jax.Array:
    """Returns ln(1 - exp(-x)), x > 0, elementwise, right in both tails (Maechler 2012).

    Example:
      >>> round(float(log1mexp(jnp.array(math.log(2.0)))), 4)  # ln 1/2
      -0.6931
    """
    split = math.log(2.0)
    near = jnp.log(-jnp.expm1(-jnp.minimum(x, split)))
    return jnp.where(x < split, near, jnp.log1p(-jnp.exp(-jnp.maximum(x, split))))


@jax.custom_jvp
def cross_entropy(logits: jax.Array, x: jax.Array) -> jax.Array:
    """Returns -x log p - (1 - x) log(1 - p), p = sigmoid(logits), elementwise; exact in both tails.

    = max(l, 0) - l x + log(1 + u) with u = exp(-|l|) in (0, 1], and log(1 + u) = 2 artanh(s), s = u / (2 + u) <= 1/3.
    Seven terms of the series in s reach float32. `log1p` would cost XLA:CPU five times as much, a tenth of the step
    of a small VAE.

    Example:
      >>> round(float(cross_entropy(jnp.array(0.0), jnp.array(1.0))), 4)  # ln 2
      0.6931
    """
    u = jnp.exp(-jnp.abs(logits))
    s = u / (2.0 + u)
    square, series = s * s, 1.0 / 13.0
    for n in (11.0, 9.0, 7.0, 5.0, 3.0, 1.0):
        series = series * square + 1.0 / n
    return jnp.maximum(logits, 0.0) - logits * x + 2.0 * s * series


@cross_entropy.defjvp
def _cross_entropy_jvp(primals, tangents):
    # Autodiff would carry the series along; this is its exact derivative, and one transcendental.
    logits, x = primals
    return cross_entropy(logits, x), (jax.nn.sigmoid(logits) - x) * tangents[0] - logits * tangents[1]
