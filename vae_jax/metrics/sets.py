"""What scores of two sets of features share: their checks, groups for a jackknife, and squared distances.

All of it is float64 numpy, a block of rows at a time. Which features these are decides what a number means: say it.
"""

from __future__ import annotations

import numpy as np

from vae_jax.errors import InputError
from vae_jax.metrics.arrays import numbers

GROUPS = 10  # that the jackknife leaves out one by one
ROWS = 1000  # rows of a distance matrix that are held at a time


def check_features(
    real: np.ndarray, generated: np.ndarray, least: int = 2, power: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Checks two sets of features.

    Args:
      real: [N, F].
      generated: [M, F].
      least: of rows in each.
      power: of the features that the score sums.

    Returns:
      both, float64.

    Raises:
      InputError: as of `numbers`, too few rows, no features, features of another size, a feature that is not finite, or
        one whose power overflows float64.
    """
    # float64: what follows takes differences of large sums of squares.
    real, generated = numbers("features: real", real), numbers("features: generated", generated)
    for name, rows in (("real", real), ("generated", generated)):
        if rows.ndim != 2:
            raise InputError(f"features: {name} has {rows.ndim} axes; it must be [images, features]")
        if rows.shape[1] < 1:
            raise InputError(f"features: {name} images have 0 features; give 1 or more")
        if len(rows) < least:
            raise InputError(f"features: {len(rows)} {name} images are too few; this metric needs {least} or more")
        if not np.isfinite(rows).all():
            row, column = np.argwhere(~np.isfinite(rows))[0]
            raise InputError(
                f"features: feature {column} of {name} image {row} is not finite; leave out images with such features"
            )
        # Differences of rows are up to twice as large, and their powers are summed.
        largest = np.finfo(np.float64).max ** (1.0 / power) / (4.0 * rows.size)
        if np.abs(rows).max() > largest:
            row, column = np.argwhere(np.abs(rows) > largest)[0]
            raise InputError(
                f"features: feature {column} of {name} image {row} is {rows[row, column]:.3g}, and sums of its "
                "powers overflow float64; divide all features by a constant"
            )
    if real.shape[1] != generated.shape[1]:
        raise InputError(
            f"features: real images have {real.shape[1]} features and generated ones {generated.shape[1]}; "
            "take both from one extractor"
        )
    return real, generated


def check_neighbors(k: object, default: int) -> int:
    """Returns k, the number of neighbors; `check_features` refuses one that is larger than the sets.

    Raises:
      InputError: no whole number of 1 or more.
    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise InputError(f"k: {k!r} must be a whole number from 1 to one less than the images; give k={default}")
    return int(k)


def grouped(real: np.ndarray, generated: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the rows of each group in both sets; one group where there are too few rows to leave any out."""
    # At least three rows per group, and as many without it.
    count = min(GROUPS, len(real) // 3, len(generated) // 3)
    parts = [np.array_split(np.arange(len(rows)), max(count, 1)) for rows in (real, generated)]
    return list(zip(*parts, strict=True))


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns |a_i - b_j|^2, [N, M], of rows a [N, F] and b [M, F]."""
    # Expanded, so that the work is one matrix product; rounding can bring the distance of equal rows below 0.
    return np.maximum(np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None] - 2.0 * a @ b.T, 0.0)
