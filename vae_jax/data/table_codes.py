"""Rows of a table as the numbers that models see, and back: the encoded form of `files.columns`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vae_jax.data.table_read import Cells, written
from vae_jax.errors import InputError, nearest, shown
from vae_jax.files.columns import Column, starts, width

# No logarithm of a number that a table can hold leaves this.
_WIDEST = 700.0


def chosen(cells: Sequence[Cells], columns: Sequence[Column], where: Path | str) -> tuple[Cells, ...]:
    """Returns the cells of the columns by their names, in the order of `columns`.

    Raises:
      InputError: a column is not there, or is not of its kind.
    """
    held = {c.name: c for c in cells}
    for column in columns:
        if column.name not in held:
            raise InputError(
                f"{where}: has no column {shown(column.name)!r}, which the model was trained on; add it (empty cells "
                f"are missing values), or rename one: {nearest(column.name, held)}"
            )
    return tuple(held[column.name] for column in columns)


def encode(cells: Sequence[Cells], columns: Sequence[Column], where: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows in their encoded form, float32 [N, E], 0 where they are missing, and what is observed, bool [N, E].

    Args:
      cells: one for each column, in the order of `columns`.
      columns: of the table.
      where: the cells come from, for messages.

    Raises:
      InputError: a value that its column cannot take.
    """
    first, rows = starts(columns), len(cells[0].text)
    x, seen = np.zeros((rows, width(columns)), np.float32), np.zeros((rows, width(columns)), bool)
    for column, c, start in zip(columns, cells, first[:-1], strict=True):
        part = slice(start, start + column.width)
        seen[:, part] = c.seen[:, None]
        x[:, part] = _levels(column, c, where) if column.levels else _numbers(column, c, where)[:, None]
    return x, seen


def _numbers(column: Column, cells: Cells, where: Path | str) -> np.ndarray:
    """Returns a numeric column or a count, 0 where nothing is observed."""
    if cells.number is None:
        row = next(i for i, text in enumerate(cells.text) if text and not _is_number(text))
        raise InputError(
            f"{where}: {shown(cells.text[row])!r} in row {row + 1} of column {shown(column.name)} is no number; "
            "correct it, or leave the cell empty if it is missing"
        )
    number = np.where(cells.seen, cells.number, 1.0)
    bad = {
        "is not finite": ~np.isfinite(number),
        "has no logarithm": (number <= 0) & column.log,
        "is no count": (column.kind == "count") & ((number < 0) | (number != np.rint(number)) | (number >= 2**24)),
    }
    for wrong, where_bad in bad.items():
        if where_bad.any():
            row = int(np.argmax(where_bad))
            raise InputError(
                f"{where}: {number[row]:g} in row {row + 1} of column {shown(column.name)} {wrong}; correct it, or "
                "leave the cell empty if it is missing"
            )
    if column.is_numeric:
        number = ((np.log(number) if column.log else number) - column.mean) / column.std
    # Far beyond what training saw, float32 may have no room.
    return np.where(cells.seen, np.clip(number, -1e30, 1e30), 0.0).astype(np.float32)


def _levels(column: Column, cells: Cells, where: Path | str) -> np.ndarray:
    """Returns a binary column [N, 1], or a one-hot block [N, levels]; zeros where nothing is observed."""
    number = {level: i for i, level in enumerate(column.levels)}
    index = np.array([number.get(text, -1) for text in cells.text.tolist()])
    unknown = cells.seen & (index < 0)
    if unknown.any():
        row = int(np.argmax(unknown))
        known = ", ".join(map(shown, column.levels[:8])) + (", ..." if len(column.levels) > 8 else "")
        raise InputError(
            f"{where}: {shown(cells.text[row])!r} in row {row + 1} is no value of column {shown(column.name)}, whose "
            f"values are {known}; use one of them, or leave the cell empty if it is missing"
        )
    index = np.where(cells.seen, index, 0)
    if column.kind == "binary":
        return (index[:, None] * cells.seen[:, None]).astype(np.float32)
    return np.eye(len(column.levels), dtype=np.float32)[index] * cells.seen[:, None]


def decode(x: np.ndarray, columns: Sequence[Column]) -> dict[str, np.ndarray]:
    """Returns rows [N, E] in the units and the words of the table: column name -> array [N].

    Whole numbers are rounded, probabilities become the most probable level, and the mean of logs is a median.

    Args:
      x: samples, means or modes of p(x|z), or what `encode` returned.
      columns: of the table.

    Returns:
      float64 or int64 of numbers, str (or int64, where all levels are whole numbers) of levels.
    """
    x = np.asarray(x, np.float64)
    found = {}
    for column, start in zip(columns, starts(columns)[:-1], strict=True):
        part = x[:, start : start + column.width]
        found[column.name] = _named(column, part) if column.levels else _units(column, part[:, 0])
    return found


def _units(column: Column, number: np.ndarray) -> np.ndarray:
    if column.is_numeric:
        number = number * column.std + column.mean
        number = np.exp(np.clip(number, -_WIDEST, _WIDEST)) if column.log else number
    if column.whole and np.all(np.abs(number) < 2**53):  # beyond, int64 could overflow
        return np.rint(number).astype(np.int64)
    # What was float32 has seven digits; the others would be noise in a file.
    return np.array([float(f"{v:.7g}") for v in number.tolist()])


def _named(column: Column, part: np.ndarray) -> np.ndarray:
    index = (part[:, 0] >= 0.5).astype(int) if column.kind == "binary" else part.argmax(1)
    words = np.array(column.levels, object)[index]
    if all(_is_whole(level) for level in column.levels):
        return words.astype(np.int64)
    if all(_is_number(level) for level in column.levels):
        return words.astype(np.float64)
    return words.astype(str)


def _is_whole(text: str) -> bool:
    return text.lstrip("-").isdecimal()


def _is_number(text: str) -> bool:
    try:
        return written(float(text)) == text
    except ValueError:
        return False


def filled(cells: Cells, made: np.ndarray) -> Cells:
    """Returns a column with values where it had none; what was observed stays as it was written.

    Args:
      cells: of one column.
      made: values in its units [N], as of `decode`.
    """
    texts = np.where(cells.seen, cells.text, np.array([text_of(v) for v in made], object))
    return Cells(cells.name, texts)


def text_of(value: object) -> str:
    """Returns a value of a column as a cell."""
    return written(float(value)) if isinstance(value, float | int | np.number) else str(value)
