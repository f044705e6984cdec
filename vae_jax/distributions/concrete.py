"""Continuous relaxations of discrete variables: Gumbel-softmax, binary Concrete, and their straight-through forms.

z = softmax((logits + g) / t) with Gumbel noise g is one-hot in the limit t -> 0, and its argmax has exactly the
categorical distribution at every temperature t (arXiv:1611.01144, arXiv:1611.00712).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, logsumexp

from vae_jax import prng


def gumbel(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns standard Gumbel noise [B, *shape], from one key per example.

    Example:
      >>> keys = jax.random.split(jax.random.key(0), 3)
      >>> gumbel(keys, (2,)).shape
      (3, 2)
      >>> bool(jnp.all(gumbel(keys[:1], (2,)) == gumbel(keys, (2,))[:1]))  # whatever the batch
      True
    """
    return jax.vmap(lambda key: jax.random.gumbel(key, shape))(keys)


def logistic(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns standard logistic noise log u - log(1 - u), [B, *shape], from one key per example.

    Example:
      >>> keys = jax.random.split(jax.random.key(0), 3)
      >>> bool(jnp.all(logistic(keys[:1], (2,)) == logistic(keys, (2,))[:1]))  # whatever the batch
      True
    """
    u = jnp.maximum(prng.uniform(keys, shape), 2.0**-24)  # u = 0 happens, once in 2^23 draws
    return jnp.log(u) - jnp.log1p(-u)


def straight_through(hard: jax.Array, soft: jax.Array) -> jax.Array:
    """Returns `hard`, bit for bit, with the gradient of `soft` (arXiv:1308.3432; arXiv:1611.01144, sec. 2.2).

    Example:
      >>> z = lambda soft: straight_through(jnp.array(1.0), 2.0 * soft)
      >>> float(z(0.3)), float(jax.grad(z)(0.3))
      (1.0, 2.0)
    """
    return jax.lax.stop_gradient(hard) + (soft - jax.lax.stop_gradient(soft))


def one_hot_mode(logits: jax.Array) -> jax.Array:
    """Returns the one-hot argmax over the last axis, the shape of `logits`.

    Example:
      >>> one_hot_mode(jnp.array([0.1, 2.0, 1.0])).tolist()
      [0.0, 1.0, 0.0]
    """
    return jax.nn.one_hot(jnp.argmax(logits, -1), logits.shape[-1], dtype=jnp.float32)


def concrete_log_prob(y: jax.Array, logits: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """Returns the log density of the Concrete distribution on the simplex (arXiv:1611.00712, eq. 10).

    log p(y) = log G(K) + (K - 1) log t - K log sum_i a_i y_i^-t + sum_i (log a_i - (t + 1) log y_i), a = exp(logits).

    Args:
      y: inside the simplex, [..., K]; a density over K - 1 free coordinates.
      logits: [..., K], of any normalization.
      temperature: t.

    Returns:
      nats [...].

    Example:
      >>> y = jnp.array([0.25, 0.75])
      >>> round(abs(float(concrete_log_prob(y, jnp.zeros(2), 1.0))), 4)  # uniform at t = 1
      0.0
    """
    size = y.shape[-1]
    log_y = jnp.log(y)
    log_sum = logsumexp(logits - temperature * log_y, -1)
    constant = gammaln(float(size)) + (size - 1) * jnp.log(temperature)
    return constant - size * log_sum + jnp.sum(logits - (temperature + 1.0) * log_y, -1)


def binary_concrete_log_prob(y: jax.Array, logits: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """Returns the log density of the binary Concrete distribution on (0, 1), elementwise (arXiv:1611.00712, app. B).

    log p(y) = log t + u - 2 log(1 + e^u) - log y(1 - y), u = logits - t logit(y): y = sigmoid((logits + logistic) / t).

    Example:
      >>> y = jnp.array(0.25)
      >>> round(abs(float(binary_concrete_log_prob(y, jnp.array(0.0), 1.0))), 4)  # uniform at t = 1
      0.0
    """
    u = logits - temperature * (jnp.log(y) - jnp.log1p(-y))
    return jnp.log(temperature) + u - 2.0 * jax.nn.softplus(u) - jnp.log(y) - jnp.log1p(-y)


def annealed(step: jax.Array, start: float, final: float, steps: int) -> jax.Array:
    """Returns the temperature start (final / start)^min(step / steps, 1): exponential, then `final`.

    Args:
      step: updates made so far, a scalar.
      start: temperature at step 0, positive.
      final: temperature from `steps` on, positive.
      steps: length of the descent.

    Returns:
      the temperature of this step, a scalar.

    Example:
      >>> round(float(annealed(jnp.array(50), start=1.0, final=0.25, steps=100)), 4)
      0.5
    """
    return start * jnp.exp(math.log(final / start) * jnp.clip(step / steps, 0.0, 1.0))
