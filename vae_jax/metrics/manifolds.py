"""Precision, recall, density and coverage: which points lie in balls about the points of another set."""

from __future__ import annotations

import numpy as np

from vae_jax.metrics.estimate import Estimate
from vae_jax.metrics.sets import ROWS, check_features, check_neighbors, squared_distances


def radii(rows: np.ndarray, k: int) -> np.ndarray:
    """Returns the squared distance [N] from each row to its k-th nearest other row."""
    found = []
    for start in range(0, len(rows), ROWS):
        part = squared_distances(rows[start : start + ROWS], rows)
        part[np.arange(len(part)), start + np.arange(len(part))] = -1.0  # itself comes first
        # Position 0 is the row itself, so position k is its k-th neighbor. Selecting is cheaper than sorting.
        found.append(np.partition(part, k, axis=1)[:, k])
    return np.concatenate(found)


def precision_recall(real: np.ndarray, generated: np.ndarray, k: int = 3) -> dict[str, Estimate]:
    """Returns the share of each set that lies in the manifold of the other: `precision` (generated) and `recall`.

    The manifold of a set is the union of balls about its points that reach the k-th nearest other point.

    Args:
      real: [N, F].
      generated: [M, F].
      k: neighbors, 3 in the paper.

    Returns:
      both in [0, 1]; standard errors are of the points that are tested, with the manifold as it is.

    Raises:
      InputError: as of `check_features`, k is no whole number of 1 or more, or fewer than k + 1 images.

    References: arXiv:1904.06991.

    Example:
      >>> real, generated = np.arange(4.0)[:, None], np.array([[1.5], [1.5], [10.0], [10.0]])
      >>> found = precision_recall(real, generated, k=1)
      >>> found["precision"].value, found["recall"].value  # two of four lie inside; balls of twins are empty
      (0.5, 0.0)
    """
    k = check_neighbors(k, 3)
    real, generated = check_features(real, generated, k + 1)

    def inside(points: np.ndarray, manifold: np.ndarray) -> np.ndarray:
        reach = radii(manifold, k)
        # ROWS x N distances at a time.
        parts = [points[s : s + ROWS] for s in range(0, len(points), ROWS)]
        return np.concatenate([(squared_distances(part, manifold) <= reach).any(1) for part in parts])

    return {
        "precision": Estimate.of(inside(generated, real)),
        "recall": Estimate.of(inside(real, generated)),
    }


def density_coverage(real: np.ndarray, generated: np.ndarray, k: int = 5) -> dict[str, Estimate]:
    """Returns `density`, the real balls that a generated image lies in by k, and `coverage`, the real balls hit.

    density = 1 / (k M) sum_j sum_i 1[|y_j - x_i| < r_i], coverage = 1 / N sum_i 1[min_j |y_j - x_i| < r_i], with r_i
    from x_i to its k-th nearest other real image. Of two samples of one distribution density has mean 1 (it can be
    larger) and coverage 1 - prod_i (M - i)/(N + M - 1 - i), i < k, about 1 - 2^-k where N = M.

    Args:
      real: [N, F].
      generated: [M, F].
      k: neighbors, 5 in the paper.

    Returns:
      both; standard errors are of the points counted, with the real balls as they are.

    Raises:
      InputError: as of `check_features`, k is no whole number of 1 or more, or fewer than k + 1 images.

    References: arXiv:2002.09797.

    Example:
      >>> real, generated = np.arange(4.0)[:, None], np.array([[1.5], [1.5], [10.0], [10.0]])
      >>> found = density_coverage(real, generated, k=1)  # 1.5 lies in the balls about 1 and 2, 10 in none
      >>> found["density"].value, found["coverage"].value
      (1.0, 0.5)
    """
    k = check_neighbors(k, 5)
    real, generated = check_features(real, generated, k + 1)
    reach = radii(real, k)
    hit, counts = np.zeros(len(real), bool), []
    for start in range(0, len(generated), ROWS):
        # [ROWS, N]: the real balls that each generated image lies in.
        inside = squared_distances(generated[start : start + ROWS], real) < reach
        hit |= inside.any(0)
        counts.append(inside.sum(1))
    return {"density": Estimate.of(np.concatenate(counts) / k), "coverage": Estimate.of(hit)}
