"""Whether the entries of examples are whole numbers, as counts are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vae_jax.data.source import Source
from vae_jax.errors import InputError, option

MOST = 2**24 - 1  # float32 holds every whole number up to 2^24; 2^24 itself may stand for 2^24 + 1
_ROWS = 4096  # examples at a time: arrays may be larger than memory


def check(source: Source, likelihood: str, given: str = "") -> None:
    """Checks that the examples of a split are counts that float32 holds exactly.

    Args:
      source: the split.
      likelihood: that takes counts, for the message.
      given: what the examples were given as to a trained model, which has its likelihood; "" in training.

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
        _check(np.asarray(rows["x"]).reshape(len(rows["x"]), -1), start, source, needs, given)


def _rows(source: Source) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Yields the number of the first row, and the rows, of one part after the other."""
    for start in range(0, len(source.records), _ROWS):
        yield start, source.records.rows(np.arange(start, min(start + _ROWS, len(source.records))))


def _check(x: np.ndarray, first: int, source: Source, needs: str, given: str) -> None:
    """Raises for rows [N, D] that are no counts; the first one is named, counted from row `first`."""
    # In order: what is not a number is neither whole nor negative.
    for wrong, bad in (("not whole", np.floor(x) != x), ("negative", x < 0), ("above 16,777,215", x > MOST)):
        if not bad.any():
            continue
        row, column = (int(i) for i in np.argwhere(bad)[0])
        where = f"{x[row, column]:.10g} in row {first + row}, column {column}"
        where = f"{given}: {where}" if given else f"data: {where} of the {source.split} split"
        other = option("model.likelihood", "gaussian-learned")
        if wrong == "negative":
            fix = "store the counts before they were centered"
            fix = fix if given else f"use {other}, or {fix}"
        elif wrong == "not whole":
            fix = "store numpy.rint(x) of the raw counts" + ("" if given else f", or use {other}")
        else:
            fix = f"store x // {int(x.max()) // MOST + 1}"
            needs = "float32 holds no larger count exactly"
        raise InputError(f"{where} is {wrong}, but {needs}; {fix}")
