"""How well each column of a table is reconstructed: in its units, and beside what a constant would reach.

Every error is of E[x | E[z|x]] against the observed cells. `explained` compares columns of any kind: 1 is exact, 0 is
no better than the best constant (the mean of the rows, or their most frequent level).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vae_jax.data.table_codes import decode
from vae_jax.files.columns import Column, starts


class ColumnError(NamedTuple):
    """The error of one column.

    Attributes:
      name: of the column.
      kind: of the column.
      n: observed cells.
      measure: "RMSE" in units of the column, or "accuracy".
      value: of the measure.
      constant: the measure of the best constant: the standard deviation, or the share of the most frequent level.
      explained: R^2 of numbers (of their logs where these are modeled), the share of the Poisson deviance of counts,
        or (accuracy - constant) / (1 - constant) of levels. NaN for a constant column.
    """

    name: str
    kind: str
    n: int
    measure: str
    value: float
    constant: float
    explained: float


def errors(
    columns: Sequence[Column], x: np.ndarray, made: np.ndarray, mask: np.ndarray | None = None
) -> tuple[ColumnError, ...]:
    """Returns the error of each column that has an observed cell.

    Args:
      columns: of the table.
      x: rows in their encoded form [N, E].
      made: their reconstructions [N, E].
      mask: what is observed of x, bool [N, E]; None for all of it.

    Returns:
      one error per column, in the order of the table.
    """
    # In the units of the table: errors that somebody who knows the data can judge.
    true, again = decode(x, columns), decode(made, columns)
    found = []
    for column, start in zip(columns, starts(columns)[:-1], strict=True):
        seen = np.ones(len(x), bool) if mask is None else np.asarray(mask)[:, start]
        # A column without a cell has no error.
        if not seen.any():
            continue
        a, b = true[column.name][seen], again[column.name][seen]
        # 1. Levels: the share that is hit, beside that of always saying the most frequent one.
        if column.levels:
            _, counts = np.unique(a, return_counts=True)
            value, constant = float(np.mean(a == b)), float(counts.max() / len(a))
            explained = (value - constant) / (1 - constant) if constant < 1 else np.nan
            found.append(ColumnError(column.name, column.kind, len(a), "accuracy", value, constant, explained))
            continue
        # What is explained is compared where it was modeled: on standardized numbers, of logs on their scale.
        raw, mean = x[seen, start].astype(np.float64), made[seen, start].astype(np.float64)
        # 2. Counts by their deviance, numbers by squares.
        if column.kind == "count":
            # Of means, not of rounded counts.
            b, left, all_ = mean, _deviance(raw, mean), _deviance(raw, np.full_like(raw, raw.mean()))
        else:
            left, all_ = np.sum((raw - mean) ** 2), np.sum((raw - raw.mean()) ** 2)
        # The best constant is the mean, whose error is the standard deviation.
        # Both are in units of the column, so that they can be compared.
        rmse, spread = float(np.sqrt(np.mean((a - b) ** 2.0))), float(np.std(a))
        explained = 1 - float(left / all_) if all_ > 0 else np.nan
        found.append(ColumnError(column.name, column.kind, len(a), "RMSE", rmse, spread, explained))
    return tuple(found)


def _deviance(x: np.ndarray, mean: np.ndarray) -> float:
    """Returns the Poisson deviance 2 sum x log(x / m) - (x - m), in nats; 0 log 0 is 0."""
    # A mean of 0 where something was counted would be infinitely wrong.
    mean = np.maximum(mean, 1e-30)
    ratio = np.where(x > 0, x, 1.0) / mean
    return float(2 * np.sum(np.where(x > 0, x * np.log(ratio), 0.0) - (x - mean)))
