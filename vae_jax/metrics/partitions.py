"""Agreement of clusters with labels that they have not seen, and k-means on codes."""

from __future__ import annotations

from typing import Any

import numpy as np

from vae_jax.errors import InputError
from vae_jax.metrics.arrays import numbers, unmasked
from vae_jax.metrics.estimate import Estimate

RESTARTS = 10
RESAMPLES = 200


def agreement(table: np.ndarray) -> tuple[float, float, float]:
    """Returns (accuracy, NMI, ARI) of clusters against labels from their contingency table [clusters, labels].

    Accuracy is max over one-to-one maps m of clusters to labels of 1/n sum_c n[c, m(c)]; NMI = 2 I / (H + H'), the
    arithmetic mean below; ARI is the Rand index corrected for chance (Hubert and Arabie 1985).

    Raises:
      InputError: a table that is not of whole counts, or is empty.

    References: Kuhn 1955 (the map); Strehl and Ghosh 2002; Hubert and Arabie 1985.

    Example:
      >>> tuple(round(score, 4) for score in agreement(np.array([[0, 2], [2, 0]])))  # equal but for the names
      (1.0, 1.0, 1.0)
      >>> tuple(round(score, 4) for score in agreement(np.array([[1, 1], [1, 1]])))  # nothing in common
      (0.5, 0.0, -0.5)
    """
    from scipy.optimize import linear_sum_assignment

    table = numbers("agreement", table)
    if table.ndim != 2:
        raise InputError(f"agreement: the table has {table.ndim} axes; give counts [clusters, labels]")
    # A NaN fails the comparison with its floor.
    wrong = ~((table >= 0) & (table == np.floor(table)) & (table < np.inf))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise InputError(
            f"agreement: entry [{row}, {column}] is {table[row, column]:g}; give counts, whole numbers of 0 or more"
        )
    if not table.sum() > 0:
        raise InputError("agreement: the table counts no example; give one of 1 or more")
    n, rows, columns = table.sum(), table.sum(1), table.sum(0)
    # One-to-one: of a table that is not square some rows or columns stay without a partner.
    matched = table[linear_sum_assignment(table, maximize=True)].sum() / n

    def entropy(counts: np.ndarray) -> float:
        # Empty cells drop out: 0 log 0 is 0.
        share = counts[counts > 0] / n
        return float(-(share * np.log(share)).sum())

    # I = H(clusters) + H(labels) - H(both), in nats; the ratio below has no unit.
    single = entropy(rows) + entropy(columns)
    mutual = single - entropy(table.reshape(-1))

    def pairs(counts: np.ndarray) -> float:
        return float((counts * (counts - 1.0)).sum() / 2.0)

    # Pairs of examples in one cluster and of one label, and how many chance would give.
    together, expected = pairs(table), pairs(rows) * pairs(columns) / pairs(np.array([n]))
    most = 0.5 * (pairs(rows) + pairs(columns))
    # 0 / 0 where both partitions are trivial, and then equal.
    ari = 1.0 if most == expected else (together - expected) / (most - expected)
    return float(matched), (1.0 if single == 0 else max(2.0 * mutual / single, 0.0)), float(ari)


def cluster(codes: np.ndarray, label: np.ndarray, *, seed: int = 0) -> dict[str, Estimate]:
    """Returns `cluster_accuracy`, `cluster_nmi` and `cluster_ari` of k-means with as many clusters as labels.

    Args:
      codes: [N, D].
      label: int [N].
      seed: of the starts of k-means and of the bootstrap.

    Returns:
      the agreement of the best of 10 starts; standard errors by bootstrap over examples, with the clusters as they are.

    Raises:
      InputError: codes or labels of other shapes or that are not finite, one label alone, or more labels than
        examples.

    Example:
      >>> found = cluster(np.array([[0.0], [0.1], [5.0], [5.1]]), np.array([1, 1, 0, 0]))
      >>> round(found["cluster_accuracy"].value, 4)
      1.0
    """
    from sklearn.cluster import KMeans

    codes, label = numbers("clustering: codes", codes), unmasked("clustering: label", label)
    if codes.ndim != 2 or not codes.shape[1] or label.ndim != 1:
        raise InputError(f"clustering: codes {codes.shape} and label {label.shape} do not fit; give [N, D] and [N]")
    if len(codes) != len(label):
        raise InputError(f"clustering: {len(codes)} codes and {len(label)} labels; give one label per code")
    if not np.isfinite(codes).all():
        row, dim = np.argwhere(~np.isfinite(codes))[0]
        raise InputError(f"clustering: code dimension {dim} is not finite (row {row}); leave out that row or dimension")
    if label.dtype.kind == "f" and not np.isfinite(label).all():
        row = np.flatnonzero(~np.isfinite(label))[0]
        raise InputError(f"clustering: label {row} is not finite; leave out that row")
    names, truth = np.unique(label, return_inverse=True)
    if len(names) < 2 or len(codes) <= len(names):
        raise InputError(
            f"clustering: {len(codes)} examples of {len(names)} label{'s' * (len(names) != 1)}; it needs two labels or "
            "more, and more examples than labels"
        )
    means: Any = KMeans(len(names), n_init=RESTARTS, random_state=seed)  # type: ignore[arg-type]
    found = means.fit_predict(codes)
    table = np.zeros((len(names), len(names)))
    # Unbuffered: with `table[...] += 1` equal pairs would count once.
    np.add.at(table, (found, truth), 1.0)
    n, rng = len(codes), np.random.default_rng(seed)
    # The scores depend on the table alone, so drawing examples again is drawing its cells again.
    drawn = rng.multinomial(n, table.reshape(-1) / n, RESAMPLES).reshape(-1, *table.shape)
    errors = np.std([agreement(t) for t in drawn], axis=0, ddof=1)
    metrics = ("cluster_accuracy", "cluster_nmi", "cluster_ari")
    return {
        name: Estimate(value, float(error), n)
        for name, value, error in zip(metrics, agreement(table), errors, strict=True)
    }
