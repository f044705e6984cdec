"""Contingency tables of codes and factors, and the entropies that they hold, in nats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from vae_jax.errors import InputError
from vae_jax.metrics.arrays import Discrete, Table, mask

CHUNK = 4096  # rows whose memberships are held at a time
BINS = 20
RESAMPLES = 50


class Entropies(NamedTuple):
    """Plug-in entropies of R tables of D codes and F factors, nats.

    The first table is of the rows themselves, the others of resampled rows. The plug-in mutual information of two
    independent variables of A and B values is not 0 but about (A - 1)(B - 1) / 2N.

    Attributes:
      code: H(z_d) [R, D].
      factor: H(y_k) [R, F].
      joint: H(z_d, y_k) [R, D, F].
    """

    code: np.ndarray
    factor: np.ndarray
    joint: np.ndarray

    @property
    def information(self) -> np.ndarray:
        """I(z_d; y_k) = H(z_d) + H(y_k) - H(z_d, y_k), [R, D, F]."""
        return self.code[:, :, None] + self.factor[:, None, :] - self.joint


def equal_width(codes: np.ndarray, bins: int, discrete: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Returns codes [N, D] in bins of equal width between each dimension's least and largest value: int64 [N, D].

    A constant dimension falls into one bin. A discrete dimension keeps its values, one bin each.

    Returns:
      the bins, counted from 0, and the number of bins of each dimension.
    """
    binned, widths = [], []
    for d in range(codes.shape[1]):
        if discrete[d]:
            values, label = np.unique(codes[:, d], return_inverse=True)
            binned.append(label)
            widths.append(len(values))
            continue
        edges = np.histogram_bin_edges(codes[:, d], bins)
        binned.append(np.digitize(codes[:, d], edges[:-1]) - 1)
        widths.append(bins)
    return np.stack(binned, axis=1), widths


def hard(binned: np.ndarray, widths: Sequence[int]) -> Callable[[slice], np.ndarray]:
    """Returns `rows -> float32 [n, sum(widths)]`, 1 where a code is in a bin."""
    first = np.concatenate([[0], np.cumsum(widths)[:-1]])

    def membership(rows: slice) -> np.ndarray:
        at = binned[rows] + first
        out = np.zeros((len(at), sum(widths)), np.float32)
        np.put_along_axis(out, at, 1.0, axis=1)
        return out

    return membership


def entropies(
    table: Table,
    membership: Callable[[slice], np.ndarray],
    widths: Sequence[int],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Entropies:
    """Returns the entropies of the rows, and of `resamples` bootstrap samples of them (rows drawn with replacement).

    Args:
      table: the factors.
      membership: `rows -> [n, sum(widths)]`, the probability of each bin of each code; sums to 1 for each code.
      widths: number of bins of each code.
      resamples: bootstrap samples.
      seed: of the bootstrap.

    Returns:
      nats of each code, each factor and each pair; row 0 is of all rows, the others of the bootstrap samples.

    Raises:
      InputError: a negative number of resamples.
    """
    if resamples < 0:
        raise InputError(f"resamples: {resamples} must be 0 or more")
    n = len(table.factors)
    rng = np.random.default_rng(seed)
    weights = np.ones((resamples + 1, n), np.float32)
    for r in range(1, resamples + 1):
        weights[r] = np.bincount(rng.integers(n, size=n), minlength=n)
    factor = hard(table.factors, table.sizes)
    counts = np.zeros((resamples + 1, sum(widths), sum(table.sizes)))
    for start in range(0, n, CHUNK):
        rows = slice(start, min(start + CHUNK, n))
        z, y = membership(rows).T, factor(rows)
        for r in range(resamples + 1):
            counts[r] += z @ (weights[r, rows, None] * y)
    return _entropies(counts / n, widths, table.sizes)


def _entropies(p: np.ndarray, widths: Sequence[int], sizes: Sequence[int]) -> Entropies:
    from scipy.special import entr

    ends_z, ends_y = np.cumsum(widths)[:-1], np.cumsum(sizes)[:-1]
    blocks = [np.split(part, ends_y, axis=2) for part in np.split(p, ends_z, axis=1)]
    joint = [[entr(block).sum((1, 2)) for block in row] for row in blocks]
    code = [entr(row[0].sum(2)).sum(1) for row in blocks]
    factor = [entr(block.sum(1)).sum(1) for block in blocks[0]]
    return Entropies(np.stack(code, 1), np.stack(factor, 1), np.stack([np.stack(row, 1) for row in joint], 1))


def spread(values: np.ndarray) -> float | None:
    """Returns the standard error by the bootstrap: the sd of the values of the resampled rows, values[1:]."""
    return float(np.std(values[1:], ddof=1)) if len(values) > 2 else None


def binned(metric: str, facts: Table, bins: int, discrete: Discrete, resamples: int, seed: int) -> Entropies:
    """Returns the entropies of codes in `bins` bins of equal width.

    Args:
      metric: name for messages.
      facts: codes [N, D] and factors [N, F].
      bins: of equal width, between the smallest and the largest value of each code.
      discrete: which codes are discrete and keep their values instead.
      resamples: bootstrap samples.
      seed: of the bootstrap.

    Returns:
      entropies in nats, as of `entropies`.

    Raises:
      InputError: fewer than 2 bins.
    """
    if bins < 2:
        raise InputError(f"{metric}: {bins} bins; it needs 2 or more")
    which = mask(metric, discrete, facts.codes.shape[1])
    inside, widths = equal_width(facts.codes, bins, which)
    return entropies(facts, hard(inside, widths), widths, resamples=resamples, seed=seed)
