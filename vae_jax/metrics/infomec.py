"""InfoMEC: modularity, compactness and explicitness in terms of information."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vae_jax.errors import InputError
from vae_jax.metrics import tables
from vae_jax.metrics.arrays import (
    GROUPS,
    Discrete,
    Score,
    Table,
    group_error,
    mask,
    one_hot_codes,
    scores,
    standardized,
    table,
)
from vae_jax.metrics.neighbors import information

NEIGHBORS = 10
ACTIVE = 1 / 20  # of the widest range of any continuous code


class InfoMec(NamedTuple):
    """InfoM, InfoC and InfoE; each with its standard error by the method of groups, a lower bound.

    Attributes:
      modularity: InfoM in [0, 1]: each code knows of one factor only.
      compactness: InfoC in [0, 1]: each factor is known to one code only; NaN with fewer than two active codes.
      explicitness: InfoE, at most 1: the share of a factor's information that a linear classifier finds.
      information: I(y_k; z_d) / H(y_k), [D, F].
      active: codes that are not pruned, bool [D].
    """

    modularity: Score
    compactness: Score
    explicitness: Score
    information: np.ndarray
    active: np.ndarray


def info_mec(
    codes: np.ndarray,
    factors: np.ndarray,
    *,
    discrete: Discrete = False,
    neighbours: int = NEIGHBORS,
    names: Sequence[str] = (),
    groups: int = GROUPS,
    seed: int = 0,
) -> InfoMec:
    """InfoM, InfoC, InfoE from the normalized mutual information N_dk = I(z_d; y_k) / H(y_k) of active codes.

        InfoM = (mean_d max_k N_dk / sum_k N_dk - 1/F) / (1 - 1/F)
        InfoC = (mean_k max_d N_dk / sum_d N_dk - 1/A) / (1 - 1/A),   A active codes
        InfoE = mean_k 1 - CE(y_k | z) / CE(y_k),   unpenalized logistic regression with balanced classes

    The paper's settings: the nearest-neighbor estimator of I between a continuous and a discrete variable with 10
    neighbors, plug-in for discrete codes; a continuous code is active if its range is over 1/20 of
    the widest one, a discrete one if it changes; the regression stops after 100 iterations and is scored on the rows it
    learned from. Without codes its cross-entropy CE(y_k) is ln B_k, since balanced classes weigh the same. A code or a
    factor with no information at all counts as the worst case; the original gives NaN there.

    Args:
      codes: mean codes [N, D].
      factors: values of the factors [N, F], F >= 2.
      discrete: code dimensions (all, or one entry each) that are discrete.
      neighbours: of the estimator.
      names: of the factors, for messages.
      groups: parts of the rows for the standard errors; 0 for none.
      seed: of the parts, and of the tiny noise that breaks ties between codes.

    Returns:
      `InfoMec`, higher is better.

    Raises:
      InputError: codes that are not finite, a constant factor, wrong shapes, too few rows for the neighbors.

    Reference: arXiv:2305.18378, section 3

    Example:
      >>> factors = np.array([[i, j] for i in range(4) for j in range(4)] * 25)
      >>> score = info_mec(factors, factors, discrete=True, groups=0)  # the factors as codes
      >>> round(score.modularity.value, 2), round(score.compactness.value, 2), round(score.explicitness.value, 2)
      (1.0, 1.0, 1.0)
    """
    facts = table("info_mec", codes, factors, names, least_factors=2)
    which = mask("info_mec", discrete, facts.codes.shape[1])
    if neighbours < 1:
        raise InputError(f"info_mec: neighbours {neighbours} must be 1 or more")
    if len(facts.codes) <= 2 * neighbours:
        raise InputError(f"info_mec: {len(facts.codes)} rows for {neighbours} neighbors; give more rows")

    def measure(facts: Table) -> tuple[float, float, float, np.ndarray, np.ndarray]:
        shares, active = _information(facts, which, neighbours, seed), _active(facts.codes, which)
        return (*_ratios(shares[active]), _explicitness(facts, which), shares, active)

    def values(rows: np.ndarray) -> Sequence[float]:
        return measure(table("info_mec", facts.codes[rows], facts.factors[rows], names))[:3]

    m, c, e, shares, active = measure(facts)
    rows = np.random.default_rng(seed).permutation(len(facts.codes))
    found = scores([m, c, e], group_error(values, rows, groups=groups))
    return InfoMec(found[0], found[1], found[2], shares, active)


def _information(facts: Table, discrete: np.ndarray, neighbors: int, seed: int) -> np.ndarray:
    z, y = facts.codes, facts.factors
    found = np.zeros((z.shape[1], y.shape[1]))
    plain = tables.binned("info_mec", facts, 2, discrete, 0, 0)  # only the discrete codes of it are used
    for d, k in np.ndindex(found.shape):
        found[d, k] = plain.information[0, d, k] if discrete[d] else information(z[:, d], y[:, k], neighbors, seed)
    return found / plain.factor[0]


def _active(codes: np.ndarray, discrete: np.ndarray) -> np.ndarray:
    ranges = np.ptp(codes, axis=0)
    widest = ranges[~discrete].max(initial=0.0)
    return np.where(discrete, ranges > 0, ranges > widest * ACTIVE)


def _ratios(shares: np.ndarray) -> tuple[float, float]:
    """Returns InfoM and InfoC of the shares [A, F] of active codes."""
    active, sources = shares.shape
    if active == 0:
        return 0.0, float("nan")

    def mean(axis: int, least: float) -> float:
        total = shares.sum(axis)
        ratio = np.where(total > 0, shares.max(axis) / np.where(total > 0, total, 1.0), least)
        return float((ratio.mean() - least) / (1 - least))

    return mean(1, 1 / sources), mean(0, 1 / active) if active > 1 else float("nan")


def _explicitness(facts: Table, discrete: np.ndarray) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    z = one_hot_codes(facts.codes, discrete)
    numbers = np.repeat(
        ~discrete, [len(np.unique(facts.codes[:, d])) if discrete[d] else 1 for d in range(len(discrete))]
    )
    z = np.where(numbers, standardized(z), z)
    shares = []
    for k, size in enumerate(facts.sizes):
        y = facts.factors[:, k]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it need not converge in 100 iterations: they are part of the definition
            model = LogisticRegression(C=np.inf, class_weight="balanced", max_iter=100).fit(z, y)
        shares.append(1 - log_loss(y, model.predict_proba(z), labels=np.arange(size)) / np.log(size))
    return float(np.mean(shares))
