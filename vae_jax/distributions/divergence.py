"""Closed-form KL divergences, looked up by the two types; what is not here is estimated from samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.distributions import ar1, categorical, correlated, gamma, gaussian, laplace, sphere, unit


def _correlated_kl(q: Any, p: Any) -> jax.Array:
    """Returns KL(q || p) [B, 1] for a correlated q and a factorized p: KL of the marginals + TC(q)."""
    closed = closed_kl(q.marginals(), p)
    assert closed is not None
    return (jnp.sum(closed, -1) + q.total_correlation())[:, None]


# (type of q, type of p) -> KL(q || p) by latent variable, [B, G] in nats. p has the shape [1, D] or [B, D].
CLOSED: dict[tuple[type, type], Callable[[Any, Any], jax.Array]] = {
    (gaussian.DiagGaussian, gaussian.DiagGaussian): gaussian.kl,
    (gaussian.DiagGaussian, laplace.Laplace): laplace.normal_laplace_kl,
    (correlated.FullGaussian, gaussian.DiagGaussian): _correlated_kl,
    (correlated.FullGaussian, laplace.Laplace): _correlated_kl,
    (correlated.LowRankGaussian, gaussian.DiagGaussian): _correlated_kl,
    (correlated.LowRankGaussian, laplace.Laplace): _correlated_kl,
    (laplace.Laplace, laplace.Laplace): laplace.laplace_kl,
    (laplace.Laplace, gaussian.DiagGaussian): laplace.laplace_normal_kl,
    (gamma.Gamma, gamma.Gamma): gamma.gamma_kl,
    (unit.Beta, unit.Beta): unit.beta_kl,
    (unit.Kumaraswamy, unit.Beta): unit.kumaraswamy_kl,
    (sphere.VonMisesFisher, sphere.UniformSphere): sphere.sphere_kl,
    (gaussian.DiagGaussian, ar1.AR1): ar1.diagonal_kl,
    (categorical.OneHotCategorical, categorical.OneHotCategorical): categorical.categorical_kl,
    (categorical.IndependentBernoulli, categorical.IndependentBernoulli): categorical.bernoulli_kl,
    (categorical.Joint, categorical.Joint): categorical.joint_kl,
}


def closed_kl(q: Any, p: Any) -> jax.Array | None:
    """Returns KL(q || p) by latent variable in nats, [B, G]; None where this pair has no closed form.

    Where KL is known only as a whole, G is 1.

    Example:
      >>> q = gaussian.DiagGaussian(jnp.ones((1, 1)), jnp.zeros((1, 1)))
      >>> p = gaussian.DiagGaussian(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
      >>> closed_kl(q, p).tolist()
      [[0.5]]
      >>> closed_kl(p, gamma.Gamma(jnp.ones((1, 1)), jnp.ones((1, 1)))) is None
      True
    """
    known = CLOSED.get((type(q), type(p)))
    return None if known is None else known(q, p)
