"""Whether the entries of examples are whole numbers, as counts are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vae_jax.data.source import Source
from vae_jax.errors import InputError, option

MOST = 2**24 - 1  # float32 holds every whole number up to 2^24; 2^24 itself may stand for 2^24 + 1
_ROWS = 4096  # examples at a time: arrays may be larger than memory


def check(source: Source, likelihood: str) -> None:
    """Checks that the examples of a split are counts that float32 holds exactly.

    Args:
      source: the split.
      likelihood: that takes counts, for the message.

    Raises:
      InputError: they are pictures, not whole, negative, or too large.
    """
    needs = f"the {likelihood} likelihood takes counts 0, 1, 2, ..."
    for start, rows in _rows(source):
        if "image" in rows:  # stored pixels, which models see between 0 and 1
            raise InputError(
                f"data: {source.info.name!r} holds brightness from 0 to 1, but {needs}; use "
                f"{option('model.likelihood', 'bernoulli')}"
            )
        _check(np.asarray(rows["x"]).reshape(len(rows["x"]), -1), start, source, needs)


def check_given(source: Source, likelihood: str, what: str) -> None:
    """Checks examples for a trained model as `check` does; what they are to be follows from the model.

    Args:
      source: the examples.
      likelihood: of the model.
      what: they were given as, for the message.

    Raises:
      InputError: as for `check`.
    """
    for start, rows in _rows(source):
        if (found := _wrong(np.asarray(rows["x"]).reshape(len(rows["x"]), -1))) is not None:
            wrong, row, column, value = found
            raise InputError(
                f"{what}: {value:.10g} in row {start + row}, column {column} is {wrong}, but the {likelihood} "
                "likelihood of the run takes counts 0, 1, 2, ...; give the raw counts"
            )


def _rows(source: Source) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yields the number of the first row, and the rows, of one part after the other."""
    for start in range(0, len(source.records), _ROWS):
        yield start, source.records.rows(np.arange(start, min(start + _ROWS, len(source.records))))


def _wrong(x: np.ndarray) -> tuple[str, int, int, float] | None:
    """Returns what is wrong with the first entry of [N, D] that is no count, its row, column and value; else None."""
    # In order: what is not a number is neither whole nor negative.
    for wrong, bad in (("not whole", np.floor(x) != x), ("negative", x < 0), ("above 16,777,215", x > MOST)):
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            return wrong, row, column, float(x[row, column])
    return None


def _check(x: np.ndarray, first: int, source: Source, needs: str) -> None:
    """Raises for rows [N, D] that are no counts; the first one is named, counted from row `first`."""
    if (found := _wrong(x)) is None:
        return
    wrong, row, column, value = found
    where = f"data: {value:.10g} in row {first + row}, column {column} of the {source.split} split"
    if wrong == "negative":
        fix = f"use {option('model.likelihood', 'gaussian-learned')}, or store the counts before they were centered"
    elif wrong == "not whole":
        fix = f"store numpy.rint(x) of the raw counts, or use {option('model.likelihood', 'gaussian-learned')}"
    else:
        fix = f"store x // {int(x.max()) // MOST + 1}"
        needs = "float32 holds no larger count exactly"
    raise InputError(f"{where} is {wrong}, but {needs}; {fix}")
