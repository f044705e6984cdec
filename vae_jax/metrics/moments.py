"""Mean and variance of a stream, exact to float64 rounding however far the mean is from zero."""

from __future__ import annotations

import numpy as np


class Moments:
    """Running mean and population variance of rows [n, D], merged batch by batch (Chan et al. 1983).

    E[x^2] - E[x]^2 loses every digit once |mean| >> std; sums of squares about the running mean do not.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: np.ndarray = np.zeros(())
        self._square: np.ndarray = np.zeros(())

    def add(self, rows: np.ndarray) -> None:
        """Takes in the rows [n, D] of one batch."""
        rows = np.asarray(rows, np.float64)
        # The moments of this batch, about its own mean.
        mean = rows.mean(0)
        square = np.square(rows - mean).sum(0)
        # The first batch brings the shape [D].
        if self.count == 0:
            self.count, self._mean, self._square = len(rows), mean, square
            return
        total = self.count + len(rows)
        # Merging n and m rows adds n m / (n + m) delta^2, the squares between the two means.
        delta = mean - self._mean
        self._square = self._square + square + np.square(delta) * (self.count * len(rows) / total)
        self._mean = self._mean + delta * (len(rows) / total)
        self.count = total

    @property
    def mean(self) -> np.ndarray:
        """The mean of each column, [D]."""
        return self._mean

    @property
    def variance(self) -> np.ndarray:
        """The population variance of each column, [D]."""
        return self._square / max(self.count, 1)
