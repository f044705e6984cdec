"""The options of a table: what its columns are."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from vae_jax.files.columns import Kind

# Options that name a kind, in the order in which they are shown.
KIND_OPTIONS: tuple[Kind, ...] = ("numeric", "student", "count", "binary", "categorical", "ordinal")


@dataclass(frozen=True)
class Table:
    """What the columns of a table are; the values decide of those that are named nowhere."""

    numeric: tuple[str, ...] = ()
    """Columns of numbers with a Gaussian; by default those of fractions, and of whole numbers other than 0 and 1."""
    student: tuple[str, ...] = ()
    """Numeric columns with a Student-t in place of the Gaussian, for heavy tails and outliers."""
    count: tuple[str, ...] = ()
    """Columns of counts 0, 1, 2, ...; none by default."""
    binary: tuple[str, ...] = ()
    """Columns of two values; by default those of 0 and 1, and of two words."""
    categorical: tuple[str, ...] = ()
    """Columns of classes; by default those of words."""
    ordinal: tuple[str, ...] = ()
    """Columns of ordered levels: numbers, or words in their order, NAME=low,middle,high; none by default."""
    log: tuple[str, ...] = ()
    """Numeric columns of positive numbers whose logs are modeled (log-normal columns)."""
    ignore: tuple[str, ...] = ()
    """Columns that are not read, such as numbers and names of rows."""
    label: str | None = None
    """Column of classes that is not modeled, but the label of each row."""

    @property
    def is_set(self) -> bool:
        """Whether any column is named."""
        return self != Table()

    def first_set(self) -> str:
        """Returns the first option that names a column."""
        return next(f.name for f in dataclasses.fields(self) if getattr(self, f.name) != f.default)

    def orders(self, names: set[str]) -> dict[str, tuple[str, ...]]:
        """Returns ordinal column -> its levels in order, () where the option does not list them.

        Args:
          names: of the columns; one that holds `=` itself is taken as a name.
        """
        found = {}
        for text in self.ordinal:
            name, _, levels = (text, "", "") if text in names else text.partition("=")
            found[name] = tuple(level.strip() for level in levels.split(",")) if levels else ()
        return found
