"""Maximum mean discrepancy of real and generated features, under the kernel of KID and a Gaussian one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vae_jax.errors import InputError
from vae_jax.metrics.estimate import Estimate, jackknife
from vae_jax.metrics.sets import ROWS, check_features, grouped, squared_distances


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
      InputError: as of `check_features`, or more than half of the pairs of real images have equal features, so that
        their median distance is 0.

    References: Gretton et al. 2012, eq. 3; arXiv:1801.01401 (KID).

    Example:
      >>> rows = np.array([[0.0], [2.0]])
      >>> found = mmd(rows, rows)  # (x.y + 1)^3 is 1 of the pair, and 1, 1, 1, 125 across
      >>> round(found["mmd_polynomial"].value, 4)  # 1 + 1 - 2 * 32
      -62.0
    """
    # The jackknife squares the cube of a product of two features.
    real, generated = check_features(real, generated, power=12)
    # Every pair once and no row with itself. Features of a run come mixed, so that the first rows stand for all.
    between = squared_distances(real[:ROWS], real[:ROWS])[np.triu_indices(min(len(real), ROWS), 1)]
    scale = float(np.median(between))
    # The distance of equal rows is 0 but for rounding, which grows with the squares that it is the difference of.
    if scale <= 1e-13 * float(np.square(real[:ROWS]).sum(1).max()):
        raise InputError("mmd: more than half of the pairs of real images have the same features; use other features")
    size = real.shape[1]
    # `scale` is the median of squared distances, the s^2 of the kernel.
    kernels: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
        "mmd_polynomial": lambda a, b: (a @ b.T / size + 1.0) ** 3,
        "mmd_rbf": lambda a, b: np.exp(-0.5 * squared_distances(a, b) / scale),
    }
    groups = grouped(real, generated)
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
