"""What is known of the columns of a table: their names and kinds, and where each is among the numbers of a row.

A row of a table is a vector of numbers to a model, its *encoded form*, one block after the other in the order of the
columns: a numeric column is one standardized number, a count the count itself, a binary column 0 or 1, and a
categorical or ordinal column a one-hot block with an entry for each of its levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np

Kind = Literal["numeric", "student", "binary", "categorical", "ordinal", "count"]
KINDS: tuple[str, ...] = get_args(Kind)


class Column(NamedTuple):
    """One column of a table.

    Attributes:
      name: in the header of the file.
      kind: "numeric" (Gaussian), "student" (numeric with heavy tails), "binary", "categorical", "ordinal" or "count".
      levels: the values of a binary, categorical or ordinal column as they are written in the file, those of an ordinal
        one in their order; () for the others.
      mean: of the training split, of the logs where `log`; of a count too, for scale. Missing values are left out.
      std: standard deviation of the training split, 1 of a constant column; 1 for all but numeric columns.
      log: whether the logs of the numbers are standardized.
      whole: whether all numbers of a numeric column are whole, and are written as such.
    """

    name: str
    kind: Kind = "numeric"
    levels: tuple[str, ...] = ()
    mean: float = 0.0
    std: float = 1.0
    log: bool = False
    whole: bool = False

    @property
    def is_numeric(self) -> bool:
        """Whether it is a standardized number."""
        return self.kind in ("numeric", "student")

    @property
    def is_block(self) -> bool:
        """Whether it is a one-hot block."""
        return self.kind in ("categorical", "ordinal")

    @property
    def width(self) -> int:
        """Numbers of its encoded form."""
        return len(self.levels) if self.is_block else 1


def starts(columns: Sequence[Column]) -> np.ndarray:
    """Returns where each column begins in a row of the encoded form, and at the end its length, int [C + 1]."""
    return np.concatenate([[0], np.cumsum([column.width for column in columns])]).astype(np.int64)


def width(columns: Sequence[Column]) -> int:
    """Returns the length E of a row of the encoded form."""
    return int(starts(columns)[-1])
