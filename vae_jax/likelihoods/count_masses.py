"""Log masses of counts, elementwise, in a form that keeps its digits from dispersions of 1e-6 to 1e8.

The textbook formulas subtract values of log Gamma that are 1e7 to leave a result near 1, which float32 cannot hold.
Here log Gamma is written as Stirling's formula and its small error, and what remains of the large terms is a sum of
non-negative deviations (Loader 2000, Fast and Accurate Computation of Binomial Probabilities).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
# S(x) = sum_n STIRLING[n] / x^(2n + 1); the first term left out is below 4e-9 from x = 4 on.
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680)
SHIFT = 4
# Powers of s^2 in `excess`: at s = 1/3 the next one is 1e-8 of the sum.
TERMS = 8
TINY = 1e-30  # means below it are taken from their logs: the quotient by a count would leave float32


class Means(NamedTuple):
    """Means of counts and their logs, of one shape: the logs hold on where the means underflow."""

    value: jax.Array
    log: jax.Array


def stirling_error(x: jax.Array) -> jax.Array:
    """Returns S(x) = log Gamma(x + 1) - (log(2 pi x) / 2 + x log x - x) of x > 0, elementwise."""
    small = x < SHIFT
    near = jnp.where(small, x, 1.0)
    # S(x) - S(x + 1) = (x + 1/2) log((x + 1) / x) - 1: small x move up to where the series holds.
    climbed = sum((near + i + 0.5) * jnp.log1p(1.0 / (near + i)) - 1.0 for i in range(SHIFT))
    # In powers of 1 / x^2 by Horner's rule, highest first.
    inverse = 1.0 / jnp.where(small, x + SHIFT, x)
    square, series = jnp.square(inverse), jnp.zeros_like(x)
    for coefficient in reversed(STIRLING):
        series = series * square + coefficient
    return series * inverse + jnp.where(small, climbed, 0.0)


def excess(delta: jax.Array, log_ratio: jax.Array) -> jax.Array:
    """Returns delta - log(1 + delta) >= 0, elementwise, to a few units of the last digit.

    Args:
      delta: more than -1, or -1 by rounding.
      log_ratio: log(1 + delta), used where |delta| is 1/2 or more: near -1 only the caller knows it.
    """
    near = jnp.abs(delta) < 0.5
    d = jnp.where(near, delta, 0.0)
    # log(1 + d) = 2 artanh(s) with s = d / (2 + d), and d - 2 s = d s: the linear terms cancel on paper.
    s = d / (2.0 + d)
    square, series = jnp.square(s), jnp.zeros_like(s)
    for n in reversed(range(TERMS)):
        series = series * square + 1.0 / (2 * n + 3)
    return jnp.where(near, d * s - 2.0 * s * square * series, delta - log_ratio)


def _log_ratio(x: jax.Array, mean: Means, factor: jax.Array | float = 1.0) -> jax.Array:
    """Returns log(factor * mean / x) of x > 0, elementwise."""
    tiny = mean.value < TINY
    # One log of the quotient, not a difference of logs: near 1 the difference would lose digits.
    ratio = factor * (jnp.where(tiny, 1.0, mean.value) / x)
    return jnp.where(tiny, mean.log - jnp.log(x) + jnp.log(factor), jnp.log(ratio))


def poisson(x: jax.Array, mean: Means) -> jax.Array:
    """Returns the log mass of counts x >= 0 under Poisson(mean), elementwise in nats."""
    # A count of 0 has a form of its own; 1 stands in for it in the other, so that no branch makes a NaN gradient.
    some = x > 0
    k = jnp.where(some, x, 1.0)
    deviance = k * excess((mean.value - k) / k, _log_ratio(k, mean))
    return jnp.where(some, -_peak(k) - deviance, -mean.value)


def _peak(k: jax.Array) -> jax.Array:
    """Returns log(2 pi k) / 2 + S(k), minus the log mass of k under Poisson(k)."""
    return HALF_LOG_2PI + 0.5 * jnp.log(k) + stirling_error(k)


def negative_binomial(x: jax.Array, mean: Means, theta: jax.Array) -> jax.Array:
    """Returns the log mass of counts x >= 0 of mean m and variance m + m^2 / theta, elementwise in nats.

    Args:
      x: counts.
      mean: m.
      theta: inverse dispersion, positive; it broadcasts against x. Infinite would be Poisson(m).
    """
    some = x > 0
    k = jnp.where(some, x, 1.0)
    whole = theta + mean.value
    # k and theta against their expected shares of k + theta; the two deviations, weighed, add up to 0.
    ratio = (k + theta) / whole
    of_theta = excess((k - mean.value) / whole, jnp.log(ratio))
    of_k = excess(theta / whole * ((mean.value - k) / k), _log_ratio(k, mean, ratio))
    around = stirling_error(k + theta) - stirling_error(theta) - 0.5 * jnp.log1p(k / theta)
    return jnp.where(some, around - _peak(k) - theta * of_theta - k * of_k, -theta * jnp.log1p(mean.value / theta))


def zero_inflated(x: jax.Array, log_mass: jax.Array, gate: jax.Array) -> jax.Array:
    """Returns log(pi [x = 0] + (1 - pi) p(x)), elementwise in nats.

    Args:
      x: counts.
      log_mass: log p(x).
      gate: logits of pi, the probability of an added zero.
    """
    # Logs of pi and 1 - pi, neither of which underflows.
    log_pi, log_rest = -jax.nn.softplus(-gate), -jax.nn.softplus(gate)
    # 1 - p(0), by expm1: where zeros are nearly sure the log of their mass is small, and keeps its digits.
    at_zero = jnp.where(x > 0, -1.0, log_mass)
    other = -jnp.expm1(at_zero) * jnp.exp(log_rest)
    sure = other < 0.5
    zero = jnp.where(sure, jnp.log1p(-jnp.where(sure, other, 0.0)), jnp.logaddexp(log_pi, log_rest + at_zero))
    return jnp.where(x > 0, log_rest + log_mass, zero)


def multinomial_rest(total: jax.Array) -> jax.Array:
    """Returns what the log masses of Poisson counts of these totals [B] lack to that of one multinomial, in nats [B].

    A multinomial is a set of Poisson counts given their total n: minus the log mass of n under Poisson(n).
    """
    return jnp.where(total > 0, _peak(jnp.where(total > 0, total, 1.0)), 0.0)
