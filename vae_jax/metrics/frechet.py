"""Frechet distance: of two Gaussians, and of Gaussians fitted to real and generated features (FID)."""

from __future__ import annotations

import numpy as np

from vae_jax.errors import InputError
from vae_jax.metrics.arrays import numbers
from vae_jax.metrics.estimate import Estimate, jackknife
from vae_jax.metrics.sets import check_features, grouped

TOLERANCE = 1e-5  # of a covariance relative to its largest entry or eigenvalue: rounding of float32
WIDEST = 1024  # features of a Frechet distance with an error: eleven decompositions of larger matrices take minutes


def gaussian_distance(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """Returns the squared 2-Wasserstein (Frechet) distance of N(a, A) and N(b, B), |a - b|^2 + tr(A + B - 2 (AB)^1/2).

    tr (AB)^(1/2) is the sum of the singular values of A^(1/2) B^(1/2), so that no root of a rounding error is taken
    where a covariance is singular.

    Args:
      mean_a, mean_b: [F].
      cov_a, cov_b: [F, F], symmetric and positive semi-definite.

    References: Dowson and Landau 1982; arXiv:1706.08500.

    Returns:
      0 or more, in squared units of the features.

    Raises:
      InputError: other shapes, numbers that are not finite, or a covariance that is not symmetric or has a negative
        eigenvalue.

    Example:
      >>> one, four = np.array([[1.0]]), np.array([[4.0]])
      >>> round(gaussian_distance(np.zeros(1), one, np.full(1, 3.0), four), 4)  # 3^2 + (2 - 1)^2
      10.0
    """
    mean_a, cov_a = _gaussian("a", mean_a, cov_a)
    mean_b, cov_b = _gaussian("b", mean_b, cov_b)
    if mean_a.shape != mean_b.shape:
        raise InputError(
            f"gaussian_distance: mean_a has {len(mean_a)} features and mean_b {len(mean_b)}; give as many of both"
        )
    return _distance(mean_a, cov_a, mean_b, cov_b)


def _gaussian(name: str, mean: np.ndarray, cov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns a mean [F] and a covariance [F, F] that passed the checks, float64."""
    mean = numbers(f"gaussian_distance: mean_{name}", mean)
    cov = numbers(f"gaussian_distance: cov_{name}", cov)
    if mean.ndim != 1 or not mean.size or cov.shape != (len(mean), len(mean)):
        raise InputError(
            f"gaussian_distance: mean_{name} {mean.shape} and cov_{name} {cov.shape} do not fit; give [F] and [F, F]"
        )
    for what, values in (("mean", mean), ("cov", cov)):
        if not np.isfinite(values).all():
            raise InputError(f"gaussian_distance: {what}_{name} is not finite; leave out rows that are not")
    if np.abs(cov - cov.T).max() > TOLERANCE * np.abs(cov).max():
        raise InputError(
            f"gaussian_distance: cov_{name} is not symmetric; give a covariance, such as np.cov(rows, rowvar=False)"
        )
    values = np.linalg.eigvalsh(cov)
    if values[0] < -TOLERANCE * np.abs(values).max():
        raise InputError(
            f"gaussian_distance: cov_{name} has the negative eigenvalue {values[0]:.3g}; give a covariance, such as "
            "np.cov(rows, rowvar=False)"
        )
    return mean, cov


def _distance(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """Returns `gaussian_distance` without its checks: differences of sums may leave a fitted covariance less exact."""

    def root(cov: np.ndarray) -> np.ndarray:
        # Rounding makes some eigenvalues of a singular covariance slightly negative.
        values, vectors = np.linalg.eigh(cov)
        return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T

    # The trace of (AB)^1/2 without the root of AB, which is not symmetric.
    cross = np.linalg.svd(root(cov_a) @ root(cov_b), compute_uv=False).sum()
    between = np.square(mean_a - mean_b).sum()
    return float(between + np.trace(cov_a) + np.trace(cov_b) - 2.0 * cross)


def frechet_distance(real: np.ndarray, generated: np.ndarray) -> Estimate:
    """Returns the Frechet distance between Gaussians fitted to features, covariances with 1 / (n - 1).

    Args:
      real: [N, F].
      generated: [M, F].

    Returns:
      the distance, in squared units of the features; its standard error is that of a jackknife over groups of images,
      None above 1,024 features. It is biased upwards, the more the fewer the images: compare equal N and M only.

    Raises:
      InputError: as of `check_features`.

    References: arXiv:1706.08500.

    Example:
      >>> real = np.array([[0.0], [2.0]])
      >>> round(frechet_distance(real, real + 3.0).value, 4)  # 3^2, and the same covariance
      9.0
    """
    # The jackknife squares a distance that is a square itself.
    real, generated = check_features(real, generated, power=4)
    center = real.mean(0)  # sums of squares about it lose no digits
    # With one group of all rows there is no jackknife, and a single decomposition.
    wide = real.shape[1] > WIDEST
    groups = [(np.arange(len(real)), np.arange(len(generated)))] if wide else grouped(real, generated)
    # Count, sum [F] and sum of squares [F, F] of each group: leaving a group out is adding up the others.
    moments = []
    for side, rows in enumerate((real, generated)):
        parts = [rows[group[side]] - center for group in groups]
        moments.append([(len(p), p.sum(0), p.T @ p) for p in parts])

    def fitted(side: int, without: int | None) -> tuple[np.ndarray, np.ndarray]:
        kept = [m for g, m in enumerate(moments[side]) if g != without]
        n = sum(m[0] for m in kept)
        total, square = np.sum([m[1] for m in kept], 0), np.sum([m[2] for m in kept], 0)
        # Relative to the common center, which cancels between the two sets.
        return total / n, (square - np.outer(total, total) / n) / (n - 1)

    def distance(without: int | None = None) -> float:
        return _distance(*fitted(0, without), *fitted(1, without))

    error = jackknife(np.array([distance(g) for g in range(len(groups))])) if len(groups) > 1 else None
    return Estimate(distance(), error, len(generated))
