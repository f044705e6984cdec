"""Closed-form KL divergences, looked up by the two types; what is not here is estimated from samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from vae_jax.distributions import categorical, gaussian

# (type of q, type of p) -> KL(q || p) by latent variable, [B, G] in nats. p has the shape [1, D] or [B, D].
CLOSED: dict[tuple[type, type], Callable[[Any, Any], jax.Array]] = {
    (gaussian.DiagGaussian, gaussian.DiagGaussian): gaussian.kl,
    (categorical.OneHotCategorical, categorical.OneHotCategorical): categorical.categorical_kl,
    (categorical.IndependentBernoulli, categorical.IndependentBernoulli): categorical.bernoulli_kl,
    (categorical.Joint, categorical.Joint): categorical.joint_kl,
}


def closed_kl(q: Any, p: Any) -> jax.Array | None:
    """Returns KL(q || p) by latent variable in nats, [B, G]; None where this pair has no closed form.

    Where KL is known only as a whole, G is 1.
    """
    known = CLOSED.get((type(q), type(p)))
    return None if known is None else known(q, p)
