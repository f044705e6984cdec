"""Several inferred Gaussians about one code, fused: as a product with the prior, or as an even mixture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vae_jax.distributions.gaussian import DiagGaussian


def product(experts: Sequence[DiagGaussian]) -> DiagGaussian:
    """Returns N(0, 1) times all experts, normalized: precisions add up, means are weighted by precision.

    1 / v = 1 + sum_i 1 / v_i,  m = v sum_i m_i / v_i (arXiv:1802.05335, sec. 2.2). What is missing is an expert less.
    Precisions are added as logarithms, so that none overflows.

    Args:
      experts: means and log variances [..., D] of one shape, one expert or more.

    Example:
      >>> a, b = (DiagGaussian(jnp.array([[mean]]), jnp.zeros((1, 1))) for mean in (3.0, 0.0))
      >>> q = product([a, b])  # three unit precisions, the prior's among them
      >>> round(float(q.mean[0, 0]), 4), round(float(q.variance()[0, 0]), 4)
      (1.0, 0.3333)
    """
    log_precision = jnp.stack([jnp.zeros_like(experts[0].log_var), *(-e.log_var for e in experts)])
    total = jax.nn.logsumexp(log_precision, axis=0)
    weights = jnp.exp(log_precision[1:] - total[None])
    return DiagGaussian(jnp.sum(weights * jnp.stack([e.mean for e in experts]), 0), -total)


class Mixture(NamedTuple):
    """1/M sum_m q_m(z) of M experts, each q(z) of B examples (arXiv:1911.03393, sec. 3).

    Example:
      >>> q = Mixture(tuple(DiagGaussian(jnp.array([[mean]]), jnp.zeros((1, 1))) for mean in (-1.0, 1.0)))
      >>> round(float(q.log_prob(jnp.zeros((1, 1)))[0]), 4)  # ln N(1; 0, 1) of both
      -1.4189
    """

    experts: tuple[DiagGaussian, ...]

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Returns log 1/M sum_m q_m(z) in nats [B], by log-sum-exp."""
        each = jnp.stack([e.log_prob(z) for e in self.experts])
        return jax.nn.logsumexp(each, axis=0) - math.log(len(self.experts))
