"""IRS: how little a code moves while its own factor is held and the others change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vae_jax.errors import InputError
from vae_jax.metrics.arrays import RESAMPLES, Table, moving, resampled, scores, table

# Of the rows in a bootstrap sample. The largest deviation spreads as much over a quarter of the rows as over all, while
# samples of all rows repeat it two times in three: their spread was .7 of the true one.
QUARTER = 0.25


class Robustness(NamedTuple):
    """Interventional robustness.

    Attributes:
      value: mean over active dimensions, weighted by how far each one moves.
      stderr: bootstrap over rows, a quarter of them each time; rather too large than too small.
      per_code: [D]; 0 for dimensions that never move.
      matrix: 1 - normalized deviation of each code when each factor is held, [D, F]; 0 for still dimensions.
      parents: the factor that holds each code best, int [D]; -1 for still dimensions.
    """

    value: float
    stderr: float | None
    per_code: np.ndarray
    matrix: np.ndarray
    parents: np.ndarray


def irs(
    codes: np.ndarray,
    factors: np.ndarray,
    *,
    quantile: float = 0.99,
    names: Sequence[str] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Robustness:
    """Interventional robustness score: how little a code moves, whatever the other factors do, once its own is held.

        IRS_dk = 1 - 1/B_k sum_b Q(|z_d - E[z_d | y_k = b]|) / max |z_d - E[z_d]|,   IRS = weighted mean of max_k IRS_dk

    Q is a quantile of the deviations among rows with y_k = b: 0.99 as in disentanglement_lib; 1 is the paper's maximum.
    Weights are the largest deviations. Dimensions that never move are left out; with no other the score is 0.

    Args:
      codes: mean codes [N, D].
      factors: values of the factors [N, F].
      quantile: in (0, 1].
      names: of the factors, for messages.
      resamples: bootstrap samples for the standard error; 0 for none.
      seed: of the bootstrap.

    Returns:
      `Robustness`, in [0, 1], higher is better. Few rows per value make it look better than it is.

    Raises:
      InputError: codes that are not finite, a constant factor, wrong shapes, or a quantile out of range.

    Reference: arXiv:1811.00007

    Example:
      >>> factors = np.array([[i, j] for i in range(4) for j in range(4)])  # the whole grid
      >>> round(irs(factors, factors, resamples=0).value, 4)  # the factors as codes
      1.0
    """
    facts = table("irs", codes, factors, names)
    if not 0 < quantile <= 1:
        raise InputError(f"irs: quantile {quantile} is out of range; it must be in (0, 1]")
    value, matrix, moves = _robustness(facts, quantile)

    def again(drawn: Table) -> tuple[float]:
        return (_robustness(drawn, quantile)[0],)

    errors = resampled("irs", facts, names, resamples, seed, again, QUARTER)
    (found,) = scores([value], errors)
    return Robustness(found.value, found.stderr, matrix.max(1), matrix, np.where(moves, matrix.argmax(1), -1))


def _robustness(facts: Table, quantile: float) -> tuple[float, np.ndarray, np.ndarray]:
    z = facts.codes
    farthest = np.abs(z - z.mean(0)).max(0)
    moves = moving(z)
    matrix = np.zeros((z.shape[1], len(facts.sizes)))
    if not moves.any():
        return 0.0, matrix, moves
    for k, size in enumerate(facts.sizes):
        rows = [z[facts.factors[:, k] == b] for b in range(size)]
        apart = np.mean([np.quantile(np.abs(r - r.mean(0)), quantile, axis=0) for r in rows], axis=0)
        matrix[moves, k] = 1 - apart[moves] / farthest[moves]
    return float(np.average(matrix[moves].max(1), weights=farthest[moves])), matrix, moves
