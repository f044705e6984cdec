"""How near generated images are to real ones, in some feature space: arrays of features in, numbers out.

All of it is float64 numpy, a block of rows at a time. Which features these are decides what a number means: say it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vae_jax.errors import InputError
from vae_jax.evaluation.features import pair
from vae_jax.evaluation.likelihood import Estimate
from vae_jax.evaluation.subject import Subject

GROUPS = 10  # that the jackknife leaves out one by one
ROWS = 1000  # rows of a distance matrix that are held at a time
WIDEST = 1024  # features of a Frechet distance with an error: eleven decompositions of larger matrices take minutes


def check_features(real: np.ndarray, generated: np.ndarray, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Returns both sets of features as float64.

    Args:
      real: [N, F].
      generated: [M, F].
      least: of rows in each.

    Raises:
      InputError: too few rows, features of another size, or a feature that is not finite.
    """
    # float64: what follows takes differences of large sums of squares.
    real, generated = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    for name, rows in (("real", real), ("generated", generated)):
        if rows.ndim != 2:
            raise InputError(f"features: {name} has {rows.ndim} axes; it must be [images, features]")
        if len(rows) < least:
            raise InputError(f"features: {len(rows)} {name} images are too few; this metric needs {least} or more")
        if not np.isfinite(rows).all():
            row, column = np.argwhere(~np.isfinite(rows))[0]
            raise InputError(
                f"features: feature {column} of {name} image {row} is not finite; look at the samples of this run"
            )
    if real.shape[1] != generated.shape[1]:
        raise InputError(
            f"features: real images have {real.shape[1]} features and generated ones {generated.shape[1]}; "
            "take both from one extractor"
        )
    return real, generated


def jackknife(values: np.ndarray) -> float:
    """Returns the standard error from the values [G] of an estimator with each of G groups left out (Efron 1982)."""
    spread = np.asarray(values, np.float64)
    # The estimates share most of their rows and vary too little; the factor G - 1 corrects for that.
    return float(np.sqrt((len(spread) - 1) * np.mean(np.square(spread - spread.mean()))))


def _groups(real: np.ndarray, generated: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the rows of each group in both sets; one group where there are too few rows to leave any out."""
    # At least three rows per group, and as many without it.
    count = min(GROUPS, len(real) // 3, len(generated) // 3)
    parts = [np.array_split(np.arange(len(rows)), max(count, 1)) for rows in (real, generated)]
    return list(zip(*parts, strict=True))


def gaussian_distance(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """Returns the squared 2-Wasserstein (Frechet) distance of N(a, A) and N(b, B), |a - b|^2 + tr(A + B - 2 (AB)^1/2).

    tr (AB)^(1/2) is the sum of the singular values of A^(1/2) B^(1/2), so that no root of a rounding error is taken
    where a covariance is singular.

    Args:
      mean_a, mean_b: [F].
      cov_a, cov_b: [F, F], symmetric and positive semi-definite.

    References: Dowson and Landau 1982; arXiv:1706.08500.
    """

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
    """
    real, generated = check_features(real, generated)
    centre = real.mean(0)  # sums of squares about it lose no digits
    # With one group of all rows there is no jackknife, and a single decomposition.
    wide = real.shape[1] > WIDEST
    groups = [(np.arange(len(real)), np.arange(len(generated)))] if wide else _groups(real, generated)
    # Count, sum [F] and sum of squares [F, F] of each group: leaving a group out is adding up the others.
    moments = []
    for side, rows in enumerate((real, generated)):
        parts = [rows[group[side]] - centre for group in groups]
        moments.append([(len(p), p.sum(0), p.T @ p) for p in parts])

    def fitted(side: int, without: int | None) -> tuple[np.ndarray, np.ndarray]:
        kept = [m for g, m in enumerate(moments[side]) if g != without]
        n = sum(m[0] for m in kept)
        total, square = np.sum([m[1] for m in kept], 0), np.sum([m[2] for m in kept], 0)
        # Relative to the common center, which cancels between the two sets.
        return total / n, (square - np.outer(total, total) / n) / (n - 1)

    def distance(without: int | None = None) -> float:
        return gaussian_distance(*fitted(0, without), *fitted(1, without))

    error = jackknife(np.array([distance(g) for g in range(len(groups))])) if len(groups) > 1 else None
    return Estimate(distance(), error, len(generated))


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns |a_i - b_j|^2, [N, M], of rows a [N, F] and b [M, F]."""
    # Expanded, so that the work is one matrix product; rounding can bring the distance of equal rows below 0.
    return np.maximum(np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None] - 2.0 * a @ b.T, 0.0)


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
      k: neighbours, 3 in the paper.

    Returns:
      both in [0, 1]; standard errors are of the points asked about, with the manifold as it is.

    Raises:
      InputError: as of `check_features`, or k + 1 images are not there.

    References: arXiv:1904.06991.
    """
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
      k: neighbours, 5 in the paper.

    Returns:
      both; standard errors are of the points counted, with the real balls as they are.

    Raises:
      InputError: as of `check_features`, or k + 1 images are not there.

    References: arXiv:2002.09797.
    """
    real, generated = check_features(real, generated, k + 1)
    reach = radii(real, k)
    hit, counts = np.zeros(len(real), bool), []
    for start in range(0, len(generated), ROWS):
        # [ROWS, N]: the real balls that each generated image lies in.
        inside = squared_distances(generated[start : start + ROWS], real) < reach
        hit |= inside.any(0)
        counts.append(inside.sum(1))
    return {"density": Estimate.of(np.concatenate(counts) / k), "coverage": Estimate.of(hit)}


def mmd(real: np.ndarray, generated: np.ndarray) -> dict[str, Estimate]:
    """Returns the unbiased squared maximum mean discrepancy under two kernels.

    MMD^2 = mean_{i!=j} k(x_i, x_j) + mean_{i!=j} k(y_i, y_j) - 2 mean_{i,j} k(x_i, y_j); its mean is 0 for equal
    distributions, so a value may be negative.

    Args:
      real: [N, F].
      generated: [M, F].

    Returns:
      `mmd_polynomial`, k = (x.y / F + 1)^3, the kernel of KID; `mmd_rbf`, k = exp(-|x - y|^2 / 2 s^2), s the median
      distance between the first 1,000 real images. Standard errors are of a jackknife over groups of images.

    Raises:
      InputError: as of `check_features`, or real images that are all equal.

    References: Gretton et al. 2012, eq. 3; arXiv:1801.01401 (KID).
    """
    real, generated = check_features(real, generated)
    # Every pair once and no row with itself. Features of a run come mixed, so that the first rows stand for all.
    between = squared_distances(real[:ROWS], real[:ROWS])[np.triu_indices(min(len(real), ROWS), 1)]
    scale = float(np.median(between))
    if scale <= 0:
        raise InputError("mmd: more than half of the real images have the same features; use other features")
    size = real.shape[1]
    # `scale` is the median of squared distances, the s^2 of the kernel.
    kernels: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
        "mmd_polynomial": lambda a, b: (a @ b.T / size + 1.0) ** 3,
        "mmd_rbf": lambda a, b: np.exp(-0.5 * squared_distances(a, b) / scale),
    }
    groups = _groups(real, generated)
    sets = (real, generated)
    # Rows of each set and group, [2, G].
    counts = np.array([[len(group[side]) for group in groups] for side in (0, 1)])
    found = {}
    for name, kernel in kernels.items():
        # sums[s, t, g, h] of k between group g of set s and group h of set t; no point with itself.
        sums = np.zeros((2, 2, len(groups), len(groups)))
        for s, t in ((0, 0), (1, 1), (0, 1)):
            for g in range(len(groups)):
                # Within a set the table is symmetric, and half of it suffices.
                for h in range(len(groups) if s != t else g + 1):
                    values = kernel(sets[s][groups[g][s]], sets[t][groups[h][t]])
                    own = np.trace(values) if s == t and g == h else 0.0
                    sums[s, t, g, h] = values.sum() - own
                    if s == t:
                        sums[s, t, h, g] = sums[s, t, g, h]

        # No point is paired with itself, so a mean over n (n - 1) pairs is unbiased. The default argument binds the
        # sums of this kernel, because the loop replaces them.
        def estimate(kept: np.ndarray, sums: np.ndarray = sums) -> float:
            n, m = counts[:, kept].sum(1)
            inside = sums[:, :, kept][:, :, :, kept].sum((2, 3))
            return float(inside[0, 0] / (n * (n - 1)) + inside[1, 1] / (m * (m - 1)) - 2 * inside[0, 1] / (n * m))

        every = np.arange(len(groups))
        # Leaving a group out is a sum over blocks: no kernel is evaluated again.
        left = [estimate(np.delete(every, g)) for g in every] if len(every) > 1 else []
        found[name] = Estimate(estimate(every), jackknife(np.array(left)) if left else None, len(generated))
    return found


def measure_frechet(subject: Subject) -> dict[str, Estimate]:
    """Returns the metric `frechet_distance` of a run."""
    real, generated, text, called = pair(subject)
    # The covariance of n rows has rank n - 1 at most.
    few = min(len(real), len(generated)) <= real.shape[1]
    text += "; fewer images than features, so the covariances are singular and the distance is biased upwards" * few
    subject.protocol["frechet_distance"] = f"{text}; {called}" if called else text
    return {"frechet_distance": frechet_distance(real, generated)}


def measure_precision_recall(subject: Subject) -> dict[str, Estimate]:
    """Returns the metrics `precision` and `recall` of a run."""
    real, generated, text, _ = pair(subject)
    subject.protocol["precision_recall"] = f"{text}; 3 neighbours"
    return precision_recall(real, generated)


def measure_density_coverage(subject: Subject) -> dict[str, Estimate]:
    """Returns the metrics `density` and `coverage` of a run."""
    real, generated, text, _ = pair(subject)
    subject.protocol["density_coverage"] = f"{text}; 5 neighbours"
    return density_coverage(real, generated)


def measure_mmd(subject: Subject) -> dict[str, Estimate]:
    """Returns the metrics `mmd_polynomial` and `mmd_rbf` of a run."""
    real, generated, text, _ = pair(subject)
    subject.protocol["mmd"] = f"{text}; unbiased squares; kernels (x.y / F + 1)^3, and Gaussian of the median distance"
    return mmd(real, generated)
