"""Calibration of stated probabilities and of quantiles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vae_jax.errors import InputError
from vae_jax.metrics.arrays import numbers

BINS = 15  # of probabilities (arXiv:1706.04599)
LEVELS = np.arange(1, 20) / 20.0  # of the distribution function
RESAMPLES = 200
ROUNDING = 1e-6  # of a sum of probabilities, relative to the pixels summed


def expected_calibration_error(counts: np.ndarray, stated: np.ndarray, seen: np.ndarray) -> float:
    """Returns sum_b n_b/n |mean probability - share of ones| over bins of equal width.

    Args:
      counts: pixels of each bin [BINS].
      stated: sums of their probabilities [BINS].
      seen: sums of their values [BINS].

    Raises:
      InputError: other shapes, no pixels, or a sum that is not between 0 and the pixels of its bin.

    References: Naeini et al. 2015; arXiv:1706.04599.

    Example:
      >>> stated, seen = np.array([0.5, 1.5]), np.array([0.0, 2.0])  # of two pixels in each of two bins
      >>> expected_calibration_error(np.array([2, 2]), stated, seen)  # 1/4 stated, 0 seen; 3/4 stated, 1 seen
      0.25
    """
    counts, stated, seen = (
        numbers(f"expected_calibration_error: {name}", values)
        for name, values in (("counts", counts), ("stated", stated), ("seen", seen))
    )
    if counts.ndim != 1 or stated.shape != counts.shape or seen.shape != counts.shape:
        raise InputError(
            f"expected_calibration_error: counts {counts.shape}, stated {stated.shape} and seen {seen.shape} do not "
            "fit; give one number per bin"
        )
    # Written so that a NaN fails.
    if not ((counts >= 0) & (counts < np.inf)).all() or not counts.sum() > 0:
        raise InputError(
            "expected_calibration_error: counts must be 0 or more, with a positive sum; give the pixels of each bin"
        )
    for name, sums in (("stated", stated), ("seen", seen)):
        wrong = ~((sums >= -ROUNDING * counts) & (sums <= (1.0 + ROUNDING) * counts))
        if wrong.any():
            worst = np.flatnonzero(wrong)[0]
            raise InputError(
                f"expected_calibration_error: {name} of bin {worst} is {sums[worst]:g}, outside 0 to its count "
                f"{counts[worst]:g}; give sums of values in [0, 1]"
            )
    # A difference of sums is n_b times a difference of means, so the weights n_b / n are in it already.
    return float(np.abs(stated - seen).sum() / counts.sum())


def quantile_error(below: np.ndarray, pixels: float) -> float:
    """Returns the mean over levels p = 0.05 ... 0.95 of |share of pixels with F(x) <= p, minus p|.

    Args:
      below: pixels with F(x) <= p, for each level [19].
      pixels: in all.

    References: arXiv:1807.00263, eq. 9 (there squared); the probability integral transform of Dawid 1984.

    Example:
      >>> round(quantile_error(10.0 * LEVELS, pixels=10.0), 4), round(quantile_error(np.zeros(19), pixels=10.0), 4)
      (0.0, 0.5)
    """
    return float(np.abs(below / pixels - LEVELS).mean())


def binned(p: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Returns counts, sums of p and sums of x by bin of p, [N, 3, BINS], for pixels p and x [N, P]."""
    # p = 1 belongs to the last bin.
    which = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    # One count for all images: image i has the bins from BINS * i on.
    flat = (which + BINS * np.arange(len(p))[:, None]).reshape(-1)
    parts = [np.bincount(flat, w, minlength=BINS * len(p)) for w in (None, p.reshape(-1), x.reshape(-1))]
    return np.stack([np.asarray(part, np.float64).reshape(len(p), BINS) for part in parts], 1)


def bootstrap(values: np.ndarray, statistic: Callable[[np.ndarray], float], seed: int) -> float | None:
    """Returns the standard deviation of statistic(sum over rows) when rows [N, ...] are drawn again, N of them."""
    n = len(values)
    if n < 2:
        return None
    # How often a resample draws each row [RESAMPLES, N]; sums are then one product, and no row is copied.
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), RESAMPLES).astype(np.float64)
    sums = np.tensordot(weights, values, 1)
    return float(np.std([statistic(s) for s in sums], ddof=1))
