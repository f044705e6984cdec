"""What the codes of a set say of its images: mutual information, and the parts of the rate (Hoffman and Johnson 2016).

The aggregate posterior of the N examples given, q(z) = 1/N sum_n q(z|x_n), is taken over all of them, exactly:

    E_n KL(q(z|x_n) || p(z)) = I(x; z) + KL(q(z) || p(z)),    0 <= I <= ln N,
    KL(q(z) || prod_j p(z_j)) = TC + sum_j KL(q(z_j) || p(z_j)),    TC = KL(q(z) || prod_j q(z_j))

(arXiv:1802.04942, eq. 2). Only the expectations over z are estimated, from one sample per example. In memory there are
a few rows of the N x N table at a time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from vae_jax.distributions.gaussian import LOG_2PI, DiagGaussian
from vae_jax.errors import InputError
from vae_jax.metrics.estimate import Estimate

TABLE = 1 << 24  # numbers in memory at a time, of the N x N x D table


class Information(NamedTuple):
    """The parts of the rate over a set, in nats.

    Attributes:
      rate: E KL(q(z|x) || p(z)), from the same samples: mutual_information + marginal_kl.
      mutual_information: I(x; z); its expectation is in [0, ln N].
      marginal_kl: KL(q(z) || p(z)); for a factorized prior total_correlation + sum of dimension_kl.
      total_correlation: KL(q(z) || prod_j q(z_j)).
      dimension_kl: KL(q(z_j) || p(z_j)) [D]; None without the prior's density of each dimension.
      dimension_kl_sum: their sum; None with them.
    """

    rate: Estimate
    mutual_information: Estimate
    marginal_kl: Estimate
    total_correlation: Estimate
    dimension_kl: tuple[float, ...] | None
    dimension_kl_sum: Estimate | None = None


def log_aggregate(q: Any, z: jax.Array, *, rows: int = 0) -> jax.Array:
    """Returns log q(z) = log 1/N sum_n q(z|x_n), [M] in nats.

    Args:
      q: posteriors of N examples, whose `log_prob` of one code z [1, D] gives all N densities of it, [N].
      z: codes [M, D].
      rows: codes done at a time; 0 for as many as fit.
    """
    return _by_rows(_log_aggregate, q, z, _examples(q, z), rows)


def log_aggregate_per_dim(q: DiagGaussian, z: jax.Array, *, rows: int = 0) -> jax.Array:
    """Returns log q(z_j) = log 1/N sum_n q(z_j|x_n), [M, D] in nats, of Gaussian q [N, D] and codes [M, D]."""
    return _by_rows(_log_aggregate_per_dim, q, z, q.mean.shape[0], rows)


def mutual_information(q: Any, z: jax.Array, *, rows: int = 0) -> Estimate:
    """Returns I(x; z) = E_n E_q(z|x_n) [log q(z|x_n) - log q(z)] in nats, x uniform over the N examples.

    Args:
      q: posteriors of the N examples, as for `log_aggregate`.
      z: one code of each, z_n ~ q(z|x_n), [N, D].
      rows: codes done at a time; 0 for as many as fit.

    Raises:
      InputError: not one code per example.

    Example:
      >>> z = jnp.array([[9.0], [-9.0]])
      >>> q = DiagGaussian(z, jnp.zeros((2, 1)))  # codes that do not overlap: ln 2
      >>> round(mutual_information(q, z).value, 4)
      0.6931
    """
    n = _examples(q, z)
    if n != z.shape[0]:
        raise InputError(f"information: {z.shape[0]} codes of {n} examples; give one code of each")
    # x_n is among the N, so log q(z_n) >= log q(z_n|x_n) - ln N: no term exceeds ln N.
    return _mean(q.log_prob(z), -log_aggregate(q, z, rows=rows))


def decompose(
    q: DiagGaussian,
    z: jax.Array,
    log_p: jax.Array,
    log_p_per_dim: jax.Array | None = None,
    *,
    rows: int = 0,
) -> Information:
    """Returns the parts of the rate of N examples with diagonal Gaussian posteriors.

    Args:
      q: their posteriors, [N, D].
      z: one code of each, z_n ~ q(z|x_n), [N, D].
      log_p: log p(z_n), [N].
      log_p_per_dim: log p(z_nj) [N, D], where the prior has independent dimensions.
      rows: codes done at a time; 0 for as many as fit.

    Returns:
      the parts in nats, each with its standard error over the examples.

    Raises:
      InputError: not one code per example.

    Example:
      >>> z = jnp.array([[3.0], [-3.0]])
      >>> q, p = DiagGaussian(z, jnp.full((2, 1), -4.0)), DiagGaussian(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
      >>> parts = decompose(q, z, p.log_prob(z))
      >>> round(parts.rate.value, 4)  # 2 + 3^2 / 2
      6.5
      >>> round(parts.mutual_information.value, 4), round(parts.marginal_kl.value, 4)  # ln 2 and the rest
      (0.6931, 5.8069)
    """
    if q.mean.shape != z.shape:
        raise InputError(f"information: codes {z.shape} of posteriors {q.mean.shape}; give one code of each example")
    # log q(z_n|x_n) [N], log q(z_n) [N] and log q(z_nj) [N, D].
    log_q, joint, single = q.log_prob(z), log_aggregate(q, z, rows=rows), log_aggregate_per_dim(q, z, rows=rows)
    dims, dims_sum = None, None
    if log_p_per_dim is not None:
        # The term of each example and dimension, [N, D].
        each = np.asarray(single, np.float64) - np.asarray(log_p_per_dim, np.float64)
        dims, dims_sum = tuple(each.mean(0).tolist()), Estimate.of(each.sum(1))
    # All parts use the same samples: the identities hold sample by sample, not just on average.
    return Information(
        rate=_mean(log_q, -log_p),
        mutual_information=_mean(log_q, -joint),
        marginal_kl=_mean(joint, -log_p),
        total_correlation=_mean(joint, -jnp.sum(single, -1)),
        dimension_kl=dims,
        dimension_kl_sum=dims_sum,
    )


def _examples(q: Any, z: jax.Array) -> int:
    """Returns N, the number of posteriors in q."""
    # A posterior of any kind shows N in the shape of its densities of one code.
    return jax.eval_shape(q.log_prob, jnp.zeros((1, z.shape[-1]), z.dtype)).shape[0]


def _mean(a: jax.Array, b: jax.Array) -> Estimate:
    # In float64: both may be hundreds of nats, and their sum a few.
    return Estimate.of(np.asarray(a, np.float64) + np.asarray(b, np.float64))


def _by_rows(program: Any, q: Any, z: jax.Array, n: int, rows: int) -> jax.Array:
    """Returns program(q, z) some rows of z at a time; the last rows are padded, so that one program serves all."""
    m, dims = z.shape
    # At most TABLE numbers of [rows, N, D] at a time.
    rows = rows or max(1, min(m, TABLE // (n * dims)))
    padded = jnp.pad(z, ((0, -m % rows), (0, 0)))
    return jnp.concatenate([program(q, padded[i : i + rows]) for i in range(0, m, rows)])[:m]


@jax.jit
def _log_aggregate(q: Any, z: jax.Array) -> jax.Array:
    # One code against the posteriors of all N examples.
    log_q = jax.vmap(lambda one: q.log_prob(one[None]))(z)  # [rows, N]
    return logsumexp(log_q, -1) - jnp.log(log_q.shape[-1])


@jax.jit
def _log_aggregate_per_dim(q: DiagGaussian, z: jax.Array) -> jax.Array:
    # The Gaussian density written out, as `log_prob` would sum over the dimensions.
    scaled = jnp.square(z[:, None] - q.mean[None]) * jnp.exp(-q.log_var)[None]
    log_q = -0.5 * (scaled + q.log_var[None] + LOG_2PI)  # [rows, N, D]
    # Over the examples, in logs: far from a code most densities underflow.
    return logsumexp(log_q, 1) - jnp.log(log_q.shape[1])
