"""UDR: whether several models of the same data, trained apart, found the same codes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

from vae_jax.errors import InputError, nearest
from vae_jax.metrics.arrays import moving, numbers, standardized

Correlation = Literal["lasso", "spearman"]


class Udr(NamedTuple):
    """Unsupervised disentanglement ranking of M models.

    Attributes:
      per_model: score of each model [M]: the median over the other models.
      stderr: of each score: bootstrap over the other models; NaN with fewer than three models.
      pairs: how well model i's codes stand for model j's, [M, M]; 0 on the diagonal.
      active: informative dimensions of each model, a list of bool [D].
    """

    per_model: np.ndarray
    stderr: np.ndarray
    pairs: np.ndarray
    active: list[np.ndarray]


def udr(
    codes: Sequence[np.ndarray],
    kl: Sequence[np.ndarray] | None = None,
    *,
    correlation: Correlation = "lasso",
    alpha: float = 0.1,
    threshold: float = 0.01,
    resamples: int = 200,
    seed: int = 0,
) -> Udr:
    """Unsupervised disentanglement ranking: disentangled models agree up to permutation and sign of their codes.

        UDR_ij = 1/2 (mean_b max_a R_ab^2 / sum_a R_ab + mean_a max_b R_ab^2 / sum_b R_ab),   UDR_j = median_{i != j}

    R_ab is the absolute weight of code a of model i in the prediction of code b of model j from all codes of i (or
    their rank correlation), over standardized codes; codes with a KL under 0.01 nats carry nothing and are left out.
    disentanglement_lib's settings: lasso with alpha 0.1, 1,000 rows. It takes both means before adding them, which is
    the paper's pooled mean where both models have as many informative codes.

    Args:
      codes: mean codes of the same rows under each of M >= 2 models, [N, D_m] each.
      kl: mean KL of each dimension in nats, [D_m] each; None takes every dimension that changes.
      correlation: "lasso" or "spearman".
      alpha: penalty of the lasso.
      threshold: least KL, nats.
      resamples, seed: of the bootstrap over models.

    Returns:
      `Udr`, 0 to about 1, higher is better; scores of models of one data set compare.

    Raises:
      InputError: fewer than 2 models, codes of different rows, codes that are not finite, or KLs of another length.

    Reference: arXiv:1905.12614

    Example:
      >>> codes = np.array([[i, j] for i in range(4) for j in range(4)])
      >>> swapped = -codes[:, ::-1]  # another model: the same codes in another order and sign
      >>> udr([codes, swapped], correlation="spearman", resamples=0).per_model.tolist()
      [1.0, 1.0]
    """
    if correlation not in get_args(Correlation):
        raise InputError(f"udr: no correlation {correlation!r}; {nearest(correlation, get_args(Correlation))}")
    if len(codes) < 2:
        raise InputError(f"udr: {len(codes)} model; it compares 2 or more runs of the same data")
    each = [numbers(f"udr: codes of model {m}", z) for m, z in enumerate(codes)]
    for m, z in enumerate(each):
        if z.ndim != 2 or len(z) != len(each[0]) or len(z) < 2:
            raise InputError(f"udr: codes of model {m} are {z.shape}; all need [N, D] for the same {len(each[0])} rows")
        if not np.isfinite(z).all():
            raise InputError(f"udr: code dimension {np.argwhere(~np.isfinite(z))[0][1]} of model {m} is not finite")
    if kl is not None and [np.shape(k) for k in kl] != [(z.shape[1],) for z in each]:
        raise InputError(f"udr: kl of shapes {[np.shape(k) for k in kl]} for codes {[z.shape for z in each]}")
    active = [moving(z) if kl is None else np.asarray(kl[m]) > threshold for m, z in enumerate(each)]
    unit = [standardized(z) * mask for z, mask in zip(each, active)]
    pairs = np.zeros((len(each), len(each)))
    for i in range(len(each)):
        for j in range(len(each)):
            if i != j:
                weights = _weights(unit[i], unit[j], correlation, alpha)
                pairs[i, j] = agreement(weights[active[i]][:, active[j]])
    others = [np.delete(pairs[:, j], j) for j in range(len(each))]
    rng = np.random.default_rng(seed)
    stderr = np.full(len(each), np.nan)
    if len(each) > 2 and resamples > 1:
        drawn = rng.integers(len(each) - 1, size=(resamples, len(each) - 1))
        stderr = np.array([np.median(o[drawn], axis=1).std(ddof=1) for o in others])
    return Udr(np.array([np.median(o) for o in others]), stderr, pairs, active)


def agreement(weights: np.ndarray) -> float:
    """Returns the relative strength of absolute weights [A, B]: 1 for one weight of 1 in each row and column."""
    if weights.size == 0:
        return 0.0

    def mean(axis: int) -> float:
        total = weights.sum(axis)
        return float(np.mean(np.where(total > 0, weights.max(axis) ** 2 / np.where(total > 0, total, 1.0), 0.0)))

    return (mean(0) + mean(1)) / 2


def _weights(one: np.ndarray, other: np.ndarray, correlation: Correlation, alpha: float) -> np.ndarray:
    """Returns absolute weights [D_i, D_j]."""
    if correlation == "spearman":
        from scipy.stats import rankdata

        a, b = standardized(rankdata(one, axis=0)), standardized(rankdata(other, axis=0))
        return np.abs(a.T @ b) / len(a)
    from sklearn.linear_model import Lasso

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not wholly converged: far below the sampling error
        return np.abs(Lasso(alpha=alpha).fit(one, other).coef_.reshape(other.shape[1], -1)).T
