"""Where the columns of each kind are, in a row of x and among the outputs of a decoder."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from vae_jax.files.columns import Column, starts

# Kinds in the order of a decoder's outputs, and of `Layout.order`.
GROUPS = ("numeric", "student", "binary", "count", "ordinal", "categorical")


class Layout(NamedTuple):
    """Constants of a table, by which its columns are scored in groups: one operation for all columns of a kind.

    Attributes:
      of: kind -> numbers of its columns, in the order of the table.
      at: kind -> where the first number of each is in a row of x.
      cuts: where the outputs of a decoder are cut into those of each kind.
      outputs: of a decoder: one per column, and of a categorical one a logit per level.
      means, stds, logs: of the numeric columns, then of the student ones.
      count_means: of the counts.
      thresholds: of each ordinal column, one less than its levels [O].
      block_at: where each level is in a row of x [N, L], ordinal columns first; 0 beyond the last.
      is_level: whether there is such a level [N, L].
      logit_at: where each categorical logit is among those of all [M, L]; 0 beyond the last.
      to_columns: puts columns in the order of the groups into the order of the table [C].
      to_row: puts numbers in the order of the groups (of blocks the levels that there are) into that of a row [E].
    """

    of: dict[str, np.ndarray]
    at: dict[str, np.ndarray]
    cuts: list[int]
    outputs: int
    means: np.ndarray
    stds: np.ndarray
    logs: np.ndarray
    count_means: np.ndarray
    thresholds: np.ndarray
    block_at: np.ndarray
    is_level: np.ndarray
    logit_at: np.ndarray
    to_columns: np.ndarray
    to_row: np.ndarray

    @property
    def numbers(self) -> np.ndarray:
        """Where the numeric columns are in a row of x, then the student ones."""
        return np.concatenate([self.at["numeric"], self.at["student"]])

    @property
    def blocks(self) -> int:
        """One-hot blocks."""
        return len(self.block_at)


@functools.lru_cache(maxsize=64)
def layout(columns: tuple[Column, ...]) -> Layout:
    """Returns where the columns of each kind are."""
    # Numbers of the columns of each kind, and where they are in a row.
    first = starts(columns)[:-1]
    of = {kind: np.array([i for i, c in enumerate(columns) if c.kind == kind], int) for kind in GROUPS}
    at = {kind: first[numbers] for kind, numbers in of.items()}
    numeric = [columns[i] for i in (*of["numeric"], *of["student"])]
    # One-hot blocks of different lengths are filled up to the longest, so that one operation serves all.
    blocks = [*of["ordinal"], *of["categorical"]]
    sizes = np.array([columns[i].width for i in blocks], int)
    most = int(sizes.max()) if blocks else 0
    is_level = np.arange(most)[None] < sizes[:, None]
    block_at = (
        np.where(is_level, first[blocks][:, None] + np.arange(most)[None], 0) if blocks else np.zeros((0, 0), int)
    )
    # The logits of the categorical columns lie one after the other.
    of_categorical = sizes[len(of["ordinal"]) :]
    logit_first = np.concatenate([[0], np.cumsum(of_categorical)]).astype(int)
    beside = logit_first[:-1, None] + np.arange(most)[None]
    # One output per column, a logit per level of the categorical ones.
    lengths = [*(len(of[kind]) for kind in GROUPS[:-1]), int(logit_first[-1])]
    # The decoder's order is by kind; both inverses bring it back to that of the table.
    order = np.concatenate([of[kind] for kind in GROUPS])
    row = np.concatenate([*(at[kind] for kind in GROUPS[:4]), block_at[is_level]])
    return Layout(
        of,
        at,
        np.cumsum(lengths)[:-1].tolist(),
        sum(lengths),
        np.array([c.mean for c in numeric], np.float32),
        np.array([c.std for c in numeric], np.float32),
        np.array([c.log for c in numeric], bool),
        np.array([columns[i].mean for i in of["count"]], np.float32),
        sizes[: len(of["ordinal"])] - 1,
        block_at,
        is_level,
        np.where(is_level[len(of["ordinal"]) :], beside, 0),
        np.argsort(order),
        np.argsort(row),
    )
