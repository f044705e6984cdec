"""Mutual information of a number and a class, from distances to nearest neighbors."""

from __future__ import annotations

import numpy as np

JITTER = 1e-10


def information(z: np.ndarray, label: np.ndarray, neighbors: int, seed: int = 0) -> float:
    """Returns I(z; y) in nats by the nearest-neighbor estimator for one continuous and one discrete variable.

        I = psi(N) + mean psi(k_n) - mean psi(N_y(n)) - mean psi(m_n)

    Row n's distance to its k-th neighbor among the N_y rows of its class is r_n; m_n rows of all, itself among them,
    are closer than that. Classes of one row are left out, smaller ones take k = N_y - 1; a negative estimate is 0.
    Noise of 1e-10 separates equal values. All of it as in scikit-learn's `mutual_info_classif`, which asks a
    tree for what sorting gives in one dimension.

    Args:
      z: [N], of any scale.
      label: int [N].
      neighbors: k.
      seed: of the noise.

    Reference: Ross 2014 (doi:10.1371/journal.pone.0087357)

    Returns:
      nats, 0 or more.
    """
    from scipy.special import digamma

    counts = np.bincount(label)
    kept = counts[label] > 1
    z, label = np.asarray(z, np.float64)[kept], label[kept]
    if not len(z):
        return 0.0
    sd = z.std()
    z = z / (sd if sd > 0 else 1.0)
    z = z + JITTER * max(1.0, float(np.mean(np.abs(z)))) * np.random.default_rng(seed).standard_normal(len(z))
    order = np.lexsort((z, label))
    z, label = z[order], label[order]
    sizes = counts[counts > 1]
    k = np.minimum(neighbors, sizes - 1)
    radius = np.concatenate([_kth(part, n) for part, n in zip(np.split(z, np.cumsum(sizes)[:-1]), k)])
    inside = _closer(np.sort(z), z, radius)
    share = sizes / len(z)
    value = digamma(len(z)) + share @ digamma(k) - share @ digamma(sizes) - np.mean(digamma(np.maximum(inside, 1)))
    return max(0.0, float(value))


def _kth(ordered: np.ndarray, k: int) -> np.ndarray:
    """Returns the distance of each of sorted numbers [n] to its k-th neighbor, [n].

    The k neighbors and the number itself stand side by side: of the windows of k + 1 that hold it, the one whose
    farther end is nearest.
    """
    n = len(ordered)
    best = np.full(n, np.inf)
    for before in range(k + 1):
        i = np.arange(before, n - (k - before))
        best[i] = np.minimum(
            best[i], np.maximum(ordered[i] - ordered[i - before], ordered[i + k - before] - ordered[i])
        )
    return best


def _closer(everyone: np.ndarray, z: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Returns how many of the sorted numbers are closer to each z than its radius, itself among them.

    z +- radius rounds, and so may land on the very neighbor that the radius is the distance to: the ends found by
    bisection are moved by one where the distance itself says so.
    """
    n = len(everyone)
    low = np.searchsorted(everyone, z - radius, "left")
    low += (z - everyone[np.minimum(low, n - 1)] >= radius) & (low < n)
    low -= (low > 0) & (z - everyone[np.maximum(low - 1, 0)] < radius)
    high = np.searchsorted(everyone, z + radius, "right")
    high -= (high > 0) & (everyone[np.maximum(high - 1, 0)] - z >= radius)
    high += (high < n) & (everyone[np.minimum(high, n - 1)] - z < radius)
    return high - low
