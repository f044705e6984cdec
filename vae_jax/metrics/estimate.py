"""A mean over examples with its standard error, and log-likelihoods in bits per dimension."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean over examples.

    Attributes:
      value: the mean.
      stderr: standard error of the mean, std(ddof=1) / sqrt(n); None for a count, or where n = 1.
      n: examples.

    Example:
      >>> found = Estimate.of(np.array([1.0, 2.0, 3.0]))
      >>> found.value, round(found.stderr, 4), found.n  # 1 / sqrt(3)
      (2.0, 0.5774, 3)
    """

    value: float
    stderr: float | None
    n: int

    @classmethod
    def of(cls, values: np.ndarray) -> Estimate:
        """Returns the mean of values [n] and its standard error."""
        # float64: a float32 sum over a split loses digits that the standard error says are there.
        values = np.asarray(values, np.float64)
        n = len(values)
        with np.errstate(invalid="ignore"):  # an infinite PSNR (a perfect image) has no spread
            stderr = float(values.std(ddof=1) / math.sqrt(n)) if n > 1 else None
        return cls(float(values.mean()), stderr, n)


def jackknife(values: np.ndarray) -> float:
    """Returns the standard error from the values [G] of an estimator with each of G groups left out (Efron 1982)."""
    spread = np.asarray(values, np.float64)
    # The estimates share most of their rows and vary too little; the factor G - 1 corrects for that.
    return float(np.sqrt((len(spread) - 1) * np.mean(np.square(spread - spread.mean()))))


def bits_per_dim(nats: np.ndarray, dims: int | np.ndarray, cell_width: float) -> np.ndarray:
    """Returns (-log p - D ln w) / (D ln 2) of log p(x) or a bound on it, nats [N], D = dims, w = cell_width.

    Example:
      >>> nats = np.array([-2.0 * math.log(2.0)])
      >>> bits_per_dim(nats, dims=2, cell_width=1.0).tolist()  # one bit for each of two binary pixels
      [1.0]
    """
    # A cell of volume w^D has mass p w^D; nats to bits by ln 2.
    return (-np.asarray(nats) / dims - math.log(cell_width)) / math.log(2.0)
