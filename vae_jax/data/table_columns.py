"""What the columns of a table are: told by their values, or by the options that name them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from vae_jax.data.table_options import KIND_OPTIONS, Table
from vae_jax.data.table_read import Cells
from vae_jax.data.values import UNKNOWN
from vae_jax.errors import InputError, nearest, option, shown
from vae_jax.files.columns import Column, Kind

MOST_COUNT = 2**24 - 1  # float32 holds every whole number up to here
# As many different words are a category whatever the number of rows; more must not be those of most rows.
_FEW = 10


def find(cells: Sequence[Cells], options: Table, where: Path | str) -> tuple[Column, ...]:
    """Returns the columns that are modeled, without means and standard deviations, in the order of the table.

    Args:
      cells: of all rows, of every split: a level that occurs anywhere is a level.
      options: which columns are of which kind.
      where: they come from, for messages.

    Raises:
      InputError: an option that names no column or the wrong one, or a column that cannot be modeled.
    """
    names = {c.name for c in cells}
    kinds = _named(names, options, where)
    orders = options.orders(names)
    left_out = {*options.ignore, options.label}
    found = []
    for c in (c for c in cells if c.name not in left_out):
        _check_values(c, where)
        column = _column(c, kinds.get(c.name), orders.get(c.name, ()), where)
        if c.name in options.log:
            column = _logged(column, c, where)
        found.append(column)
    if not found:
        raise none_left(where)
    return tuple(found)


def none_left(where: Path | str) -> InputError:
    """Returns the error about a table of which every column is left out."""
    return InputError(f"{where}: no column is left to model; name fewer in {option('data.table.ignore')}")


def _named(names: set[str], options: Table, where: Path | str) -> dict[str, Kind]:
    """Returns column -> the kind that an option names for it."""
    kinds: dict[str, Kind] = {}
    groups: dict[str, tuple[str, ...]] = {kind: getattr(options, kind) for kind in KIND_OPTIONS}
    groups["ordinal"] = tuple(options.orders(names))
    others = {"log": options.log, "ignore": options.ignore, "label": (options.label,) if options.label else ()}
    for group, given in (groups | others).items():
        for name in given:
            if name not in names:
                raise InputError(
                    f"data.table.{group}: {shown(where)} has no column {shown(name)!r}; {nearest(name, names)}"
                )
            if group in groups:
                if name in kinds:
                    raise InputError(
                        f"data.table.{group}: {shown(name)} is named as {kinds[name]} too; leave it out of one"
                    )
                kinds[name] = cast(Kind, group)
            elif group == "label" and name in {*kinds, *options.ignore, *options.log}:
                raise InputError(
                    f"data.table.label: {shown(name)} is named in another option of the table too; leave it out there"
                )
    return kinds


def _check_values(cells: Cells, where: Path | str) -> None:
    """Raises InputError for a column without values, or with infinite ones."""
    if not cells.seen.any():
        raise InputError(
            f"{where}: column {shown(cells.name)} has no value; use {option('data.table.ignore', cells.name)}"
        )
    if cells.number is not None and (endless := np.isinf(cells.number)).any():
        raise InputError(
            f"{where}: column {shown(cells.name)} has {int(endless.sum())} infinite values, the first in row "
            f"{int(np.argmax(endless)) + 1}; leave the cell empty if it is missing, or use "
            f"{option('data.table.ignore', cells.name)}"
        )


def _column(cells: Cells, kind: Kind | None, order: tuple[str, ...], where: Path | str) -> Column:
    """Returns the column of this kind; None tells it by the values."""
    name = cells.name
    values = levels(cells)
    number = None if cells.number is None else cells.number[cells.seen]
    bits = number is not None and set(np.unique(number)) <= {0.0, 1.0}
    if kind is None:
        if number is not None:
            kind = "binary" if bits else "numeric"
        else:
            _refuse_names(cells, values, where)
            kind = "binary" if len(values) == 2 else "categorical"
    if kind in ("numeric", "student", "count"):
        if number is None:
            word = next(t for t in values if not _is_number(t))
            raise InputError(
                f"data.table.{kind}: column {shown(name)} holds words such as {shown(word)!r}; use "
                f"{option('data.table.categorical', name)}"
            )
        if kind == "count":
            _check_count(name, number)
            return Column(name, "count", whole=True)
        return Column(name, kind, whole=bool(np.all(number == np.rint(number))))
    if kind == "binary":
        # 0 and 1 are both values, whether or not both occur.
        values = ("0", "1") if bits else values
        if len(values) != 2:
            raise InputError(
                f"data.table.binary: column {shown(name)} has {len(values)} values; use "
                f"{option('data.table.categorical', name)}"
            )
    if kind == "ordinal":
        values = _ordered(cells, values, order)
    return Column(name, kind, values)


def levels(cells: Cells) -> tuple[str, ...]:
    """Returns the values of a column as texts: numbers by size, words by the alphabet."""
    if cells.number is not None:
        found = dict(zip(cells.text[cells.seen].tolist(), cells.number[cells.seen].tolist()))
        return tuple(sorted(found, key=lambda text: found[text]))
    return tuple(sorted(set(cells.text[cells.seen].tolist())))


def _refuse_names(cells: Cells, values: tuple[str, ...], where: Path | str, fix: str = "") -> None:
    """Raises InputError for words that name rows: a category has fewer values than rows."""
    rows = int(cells.seen.sum())
    if len(values) > max(_FEW, rows // 2):
        raise InputError(
            f"{where}: column {shown(cells.name)} has {len(values):,} different words in {rows:,} rows, so it names "
            f"rows and is no category; {fix or 'use ' + option('data.table.ignore', cells.name)}"
        )


def _check_count(name: str, number: np.ndarray) -> None:
    for wrong, bad in (
        ("is not whole", number != np.rint(number)),
        ("is negative", number < 0),
        ("is above 16,777,215", number > MOST_COUNT),
    ):
        if bad.any():
            raise InputError(
                f"data.table.count: {number[np.argmax(bad)]:.10g} in column {shown(name)} {wrong}, but counts are 0, "
                f"1, 2, ...; use {option('data.table.numeric', name)}"
            )


def _ordered(cells: Cells, values: tuple[str, ...], order: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the levels of an ordinal column in their order."""
    name = shown(cells.name)
    if not order:
        if cells.number is None:
            few = ",".join(values[:5])
            raise InputError(
                f"data.table.ordinal: column {name} holds words, whose order is not known; list them from low to high: "
                f"{option('data.table.ordinal', f'{cells.name}={few}')}"
            )
        return values
    if twice := [level for level in order if order.count(level) > 1]:
        raise InputError(f"data.table.ordinal: {name} lists {shown(twice[0])!r} twice; list each level once")
    if missing := [value for value in values if value not in order]:
        whole = ",".join((*order, *missing))
        raise InputError(
            f"data.table.ordinal: column {name} has the value {shown(missing[0])!r}, which is not listed; put it in "
            f"its place: {option('data.table.ordinal', f'{cells.name}={whole}')}"
        )
    return order


def _logged(column: Column, cells: Cells, where: Path | str) -> Column:
    """Returns a numeric column whose logs are modeled."""
    if not column.is_numeric:
        raise InputError(
            f"data.table.log: column {shown(column.name)} is {column.kind}, and only logs of numeric columns are "
            f"modeled; leave it out of {option('data.table.log')}"
        )
    assert cells.number is not None
    number = cells.number[cells.seen]
    if (number <= 0).any():
        raise InputError(
            f"data.table.log: column {shown(column.name)} of {where} holds {number.min():g}, which has no logarithm; "
            f"leave it out of {option('data.table.log')}, or use {option('data.table.student', column.name)}"
        )
    return column._replace(log=True)


def fitted(columns: Sequence[Column], train: Sequence[Cells], where: Path | str) -> tuple[Column, ...]:
    """Returns the columns with the means and standard deviations of the training split.

    Args:
      columns: as of `find`.
      train: the cells of the same columns in the training split.
      where: they come from, for messages.

    Raises:
      InputError: a column that the training split has no value of, or whose spread has no place in float64.
    """
    found = []
    for column, cells in zip(columns, train, strict=True):
        if not cells.seen.any():
            raise InputError(
                f"{where}: column {shown(column.name)} has no value in the training split; use "
                f"{option('data.table.ignore', column.name)}"
            )
        if column.is_numeric or column.kind == "count":
            assert cells.number is not None
            number = cells.number[cells.seen]
            number = np.log(number) if column.log else number
            with np.errstate(over="ignore", invalid="ignore"):
                mean, std = float(number.mean()), float(number.std())
            if not np.isfinite([mean, std]).all():
                raise InputError(
                    f"{where}: column {shown(column.name)} has values up to {np.abs(number).max():g}, whose standard "
                    f"deviation is beyond float64; use {option('data.table.ignore', column.name)}, or its logarithm"
                )
            # A constant column has nothing to standardize by.
            flat = std <= 1e-12 * max(abs(mean), 1e-300)
            column = column._replace(mean=mean, std=1.0 if flat or column.kind == "count" else std)
        found.append(column)
    return tuple(found)


def notes(columns: Sequence[Column], cells: Sequence[Cells], options: Table) -> tuple[str, ...]:
    """Returns the lines that a run prints: the kind of every column, and those that are constant."""
    by_kind: dict[str, list[str]] = {}
    for c in columns:
        extra = f" ({len(c.levels)})" if c.is_block else " (log)" if c.log else ""
        by_kind.setdefault(c.kind, []).append(f"{shown(c.name)}{extra}")
    said = [f"{len(names)} {kind}: {_some(names)}" for kind, names in by_kind.items()]
    if options.label:
        said.append(f"label: {shown(options.label)}")
    found = [f"columns: {'; '.join(said)}"]
    flat = [shown(c.name) for c in cells if len(levels(c)) == 1]
    if flat:
        found.append(f"constant columns, which say nothing: {_some(flat)} ({option('data.table.ignore')} leaves out)")
    return tuple(found)


def _some(names: Iterable[str], most: int = 12) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def labels(cells: Cells, where: Path | str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the label of each row, int32 [N], -1 where its cell is empty, and the names of the labels.

    Raises:
      InputError: no row has a label, or there are as many labels as rows.
    """
    if not cells.seen.any():
        raise InputError(
            f"data.table.label: no row of {where} has a {shown(cells.name)}; fill some in, or use "
            f"{option('data.table.ignore', cells.name)}"
        )
    names = levels(cells)
    known = None if cells.number is None else cells.number[cells.seen]
    if known is None or not np.all(known == np.rint(known)):
        _refuse_names(cells, names, where, f"name another in {option('data.table.label')}")
    number = {name: i for i, name in enumerate(names)}
    seen = zip(cells.text.tolist(), cells.seen.tolist(), strict=True)
    return np.array([number[text] if is_seen else UNKNOWN for text, is_seen in seen], np.int32), names
