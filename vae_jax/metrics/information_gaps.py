"""Scores read from the mutual information of codes and factors: MIG, RMIG, JEMMIG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from vae_jax.errors import InputError
from vae_jax.metrics import tables
from vae_jax.metrics.arrays import Discrete, Table, mask, numbers, table

SOFT_BINS = 100
LIMITS = (-4.0, 4.0)


class Gap(NamedTuple):
    """A score of each factor, and the information it is made of.

    Attributes:
      value: mean over factors.
      stderr: bootstrap over rows: the sd of the value under rows drawn with replacement. The plug-in bias, about
        (A - 1)(B - 1) / 2N nats in each mutual information, is not in it.
      per_factor: [F].
      mutual_information: I(z_d; y_k), nats [D, F].
      entropy: H(y_k), nats [F].
      best: the code dimension that knows most of each factor, int [F].
      outside: share of codes beyond the limits of the bins; 0 for bins between the least and largest code.
    """

    value: float
    stderr: float | None
    per_factor: np.ndarray
    mutual_information: np.ndarray
    entropy: np.ndarray
    best: np.ndarray
    outside: float = 0.0


def mig(
    codes: np.ndarray,
    factors: np.ndarray,
    *,
    bins: int = tables.BINS,
    discrete: Discrete = False,
    names: Sequence[str] = (),
    resamples: int = tables.RESAMPLES,
    seed: int = 0,
) -> Gap:
    """Mutual information gap: how much more the best code of a factor knows of it than the second best.

        MIG = 1/F sum_k (I(z_(1); y_k) - I(z_(2); y_k)) / H(y_k)

    Each code is put into `bins` bins of equal width between its least and largest value, as in disentanglement_lib
    (arXiv:1811.12359), which takes 10,000 rows. With 20 bins a factor of 40 values cannot reach 1: the ceiling of
    perfect codes is 0.902 on the factor grid of dSprites.

    Args:
      codes: mean codes [N, D], D >= 2.
      factors: values of the factors [N, F].
      bins: A.
      discrete: code dimensions (all, or one entry each) whose values are kept as they are, not binned.
      names: of the factors, for messages.
      resamples: bootstrap samples for the standard error; 0 for none.
      seed: of the bootstrap.

    Returns:
      `Gap`, in [0, 1], higher is better. A code that is there twice gives 0.

    Raises:
      InputError: codes that are not finite, a constant factor, wrong shapes, or fewer than 2 codes or bins.

    Reference: arXiv:1802.04942, section 4.1

    Example:
      >>> factors = np.array([[i, j] for i in range(4) for j in range(4)])  # the whole grid
      >>> round(mig(factors, factors, resamples=0).value, 4)  # the factors as codes
      1.0
      >>> gap = mig(factors[:, [0, 0, 1]], factors, resamples=0)  # two codes know factor 0
      >>> [round(abs(float(value)), 4) for value in gap.per_factor]
      [0.0, 1.0]
    """
    facts = table("mig", codes, factors, names, least_codes=2)
    entropies = tables.binned("mig", facts, bins, discrete, resamples, seed)
    gap, best, _ = _gap(entropies)
    return _made(entropies, gap / entropies.factor, best)


def rmig(
    codes: np.ndarray,
    factors: np.ndarray,
    log_var: np.ndarray | None = None,
    *,
    bins: int = SOFT_BINS,
    limits: tuple[float, float] = LIMITS,
    discrete: Discrete = False,
    names: Sequence[str] = (),
    resamples: int = tables.RESAMPLES,
    seed: int = 0,
) -> Gap:
    """Robust MIG: the gap under the whole posterior q(z|x), on bins that are the same for every dimension.

        RMIG = 1/F sum_k (I(z_(1); y_k) - I(z_(2); y_k)) / H(y_k),   Q(z = a | x) ~ N(center of a; mean, var)

    The paper's settings: 100 bins between -4 and 4. Codes beyond them count in the outermost bin; `outside` says how
    many there were.

    Args:
      codes: mean codes [N, D], D >= 2.
      factors: values of the factors [N, F].
      log_var: log variances of q(z|x) [N, D]; None puts each code wholly into its bin.
      bins, limits: the bins.
      discrete, names, resamples, seed: as for `mig`.

    Returns:
      `Gap`, in [0, 1], higher is better.

    Raises:
      InputError: as `mig`; log_var of another shape or not finite; limits the wrong way round.

    Reference: arXiv:1908.09961, section 4.3

    Example:
      >>> factors = np.array([[i, j] for i in range(4) for j in range(4)])  # the whole grid
      >>> round(rmig(factors, factors, resamples=0).value, 4)  # the factors as codes
      1.0
      >>> wide = np.full(factors.shape, 10.0)  # log variances of posteriors that know nothing
      >>> round(abs(rmig(factors, factors, wide, resamples=0).value), 2)
      0.0
    """
    facts = table("rmig", codes, factors, names, least_codes=2)
    entropies, outside, _ = _posterior_binned("rmig", facts, log_var, bins, limits, discrete, resamples, seed)
    gap, best, _ = _gap(entropies)
    return _made(entropies, gap / entropies.factor, best, outside)


def jemmig(
    codes: np.ndarray,
    factors: np.ndarray,
    log_var: np.ndarray | None = None,
    *,
    bins: int = SOFT_BINS,
    limits: tuple[float, float] = LIMITS,
    discrete: Discrete = False,
    names: Sequence[str] = (),
    resamples: int = tables.RESAMPLES,
    seed: int = 0,
) -> Gap:
    """Joint entropy minus MIG, normalized: also asks that the best code knows nothing but its factor.

        JEMMIG = 1/F sum_k (H(z_*, y_k) - I(z_*; y_k) + I(z_(2); y_k)) / (H(y_k) + ln A),   * = argmax_d I(z_d; y_k)

    Args:
      codes: mean codes [N, D], D >= 2.
      factors: values of the factors [N, F].
      log_var: log variances of q(z|x) [N, D]; None puts each code wholly into its bin.
      bins, limits: the bins.
      discrete, names, resamples, seed: as for `mig`.

    Returns:
      `Gap`, in [0, 1], LOWER is better, as in the paper: 0 only if codes and factors are functions of each other.

    Raises:
      InputError: as `rmig`.

    Reference: arXiv:1908.09961, section 4.3

    Example:
      >>> factors = np.array([[i, j] for i in range(4) for j in range(4)])  # the whole grid
      >>> round(jemmig(factors, factors, resamples=0).value, 4)  # the factors as codes: the best score
      0.0
    """
    facts = table("jemmig", codes, factors, names, least_codes=2)
    entropies, outside, widths = _posterior_binned("jemmig", facts, log_var, bins, limits, discrete, resamples, seed)
    gap, best, joint = _gap(entropies)
    most = entropies.factor + np.log(np.asarray(widths))[best]  # a discrete code has bins of its own number
    return _made(entropies, (joint - gap) / most, best, outside)


def _gap(entropies: tables.Entropies) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the gap in nats [R, F], the best code [R, F], and its joint entropy with the factor [R, F]."""
    information = entropies.information
    order = np.sort(information, axis=1)
    best = information.argmax(1)
    joint = np.take_along_axis(entropies.joint, best[:, None, :], axis=1)[:, 0]
    return order[:, -1] - order[:, -2], best, joint


def _made(entropies: tables.Entropies, per_factor: np.ndarray, best: np.ndarray, outside: float = 0.0) -> Gap:
    value = per_factor.mean(1)
    information, entropy = entropies.information[0], entropies.factor[0]
    return Gap(float(value[0]), tables.spread(value), per_factor[0], information, entropy, best[0], outside)


def _posterior_binned(
    metric: str,
    facts: Table,
    log_var: np.ndarray | None,
    bins: int,
    limits: tuple[float, float],
    discrete: Discrete,
    resamples: int,
    seed: int,
) -> tuple[tables.Entropies, float, list[int]]:
    low, high = limits
    if bins < 2 or not low < high:
        raise InputError(f"{metric}: {bins} bins from {low} to {high}; give 2 or more, and limits in rising order")
    which = mask(metric, discrete, facts.codes.shape[1])
    codes = facts.codes[:, ~which]
    outside = float(((codes < low) | (codes > high)).mean()) if codes.size else 0.0
    edges = np.linspace(low, high, bins + 1)
    ordered, widths = tables.equal_width(facts.codes, bins, which)
    if log_var is not None:
        log_var = numbers(f"{metric}: log_var", log_var)
        if log_var.shape != facts.codes.shape:
            raise InputError(f"{metric}: log_var {log_var.shape} and codes {facts.codes.shape}; the shapes must agree")
        if np.isnan(log_var).any():
            raise InputError(f"{metric}: log_var of dimension {np.argwhere(np.isnan(log_var))[0][1]} is not a number")
        membership = _soft(facts.codes, log_var, which, tables.hard(ordered, widths), widths, edges)
    else:
        fixed = np.clip(np.digitize(facts.codes, edges) - 1, 0, bins - 1)
        membership = tables.hard(np.where(which, ordered, fixed), widths)
    return tables.entropies(facts, membership, widths, resamples=resamples, seed=seed), outside, widths


def _soft(
    codes: np.ndarray,
    log_var: np.ndarray,
    discrete: np.ndarray,
    ordered: Callable[[slice], np.ndarray],
    widths: Sequence[int],
    edges: np.ndarray,
) -> Callable[[slice], np.ndarray]:
    """Returns the memberships under N(mean, var): its density at the centers of the bins, normalized over them."""
    centers = (edges[:-1] + edges[1:]) / 2
    first = np.concatenate([[0], np.cumsum(widths)])

    def membership(rows: slice) -> np.ndarray:
        out = ordered(rows)
        for d in np.flatnonzero(~discrete):
            precision = np.exp(-np.clip(log_var[rows, d], -60.0, 60.0))
            energy = -0.5 * precision[:, None] * np.square(centers - codes[rows, d, None])
            weight = np.exp(energy - energy.max(1, keepdims=True))
            out[:, first[d] : first[d + 1]] = weight / weight.sum(1, keepdims=True)
        return out

    return membership
