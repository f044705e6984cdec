"""The user's own table: a .csv, .tsv or .parquet, or an array [N, D], as vectors whose columns are known.

The kinds of columns follow from their values (`table_columns`) or are named by `data.table`. Numeric ones are
standardized by the mean and the standard deviation of the training split, which the run remembers; empty cells are
missing values.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vae_jax.data import split as split_lib
from vae_jax.data import table_codes, table_columns, table_read, unlabeled
from vae_jax.data.config import DataConfig
from vae_jax.data.source import Info, Source, from_arrays, no_validation
from vae_jax.data.table_options import Table
from vae_jax.data.table_read import Cells
from vae_jax.errors import InputError, nearest, option, shown
from vae_jax.files.columns import Column, width


def load(config: DataConfig, split: str, columns: Sequence[Column] = ()) -> Source:
    """Returns a split of the table in `config.source`.

    Args:
      config: `source` names the file, `table` what its columns are, `protocol` how it is split.
      split: "train", "validation" or "test".
      columns: those that a model was trained on, with its means and standard deviations; () finds them.

    Raises:
      InputError: no such file, or a table that cannot be read or modeled.
    """
    if config.source is None:
        raise InputError(f"data.source: 'table' needs a file; name it with {option('data', 'FILE.csv')}")
    path = Path(config.source).expanduser()
    return divided(table_read.read(path, config.max_bytes), config, split, str(path), columns)


def divided(
    cells: Sequence[Cells], config: DataConfig, split: str, where: str, columns: Sequence[Column] = ()
) -> Source:
    """Returns `load` of a table that was read.

    Args:
      cells: of all rows.
      config: as in `load`.
      split: "train", "validation" or "test".
      where: the cells come from, for messages and the run's record.
      columns: as in `load`.

    Returns:
      the source.

    Raises:
      InputError: as `load`.
    """
    groups = None if config.groups is None else _groups(cells, config.groups, where)
    if config.groups is not None:  # whose row it is says nothing about the next patient
        table = dataclasses.replace(config.table, ignore=(*config.table.ignore, config.groups))
        config = dataclasses.replace(config, table=table)
    kept = tuple(c for c in cells if c.name not in config.table.ignore)
    labels = None if config.table.label is None else _labels(cells, config.table, where)[0]
    if all(c.name == config.table.label for c in kept):
        raise table_columns.none_left(where)
    hashes = row_hashes(kept)
    division = split_lib.divided(config, where, lambda: hashes, len(hashes), groups=groups, labels=labels)
    if split not in division.rows:
        raise no_validation("table", config.protocol, split_lib.validated(division))
    found = source(cells, division.rows, config, split, where, division.text, columns)
    notes = (*found.info.notes, *division.notes)
    info = dataclasses.replace(found.info, protocol=division.protocol, notes=notes)
    return dataclasses.replace(found, info=info, division=division)


def _groups(cells: Sequence[Cells], name: str, where: str) -> np.ndarray:
    """Returns the group of each row, str [N]: the cells of a column."""
    found = next((c for c in cells if c.name == name), None)
    if found is None:
        raise InputError(f"data.groups: {where} has no column {shown(name)}; {nearest(name, [c.name for c in cells])}")
    if not found.seen.all():
        raise InputError(
            f"data.groups: {int((~found.seen).sum())} rows of {where} have no {shown(name)}, the first is row "
            f"{int(np.argmin(found.seen)) + 1}; fill them in"
        )
    return found.text.astype(str)


def source(
    cells: Sequence[Cells],
    rows: dict[str, np.ndarray],
    config: DataConfig,
    split: str,
    where: str,
    protocol_text: str,
    columns: Sequence[Column] = (),
    name: str = "table",
) -> Source:
    """Returns one split of a table.

    Args:
      cells: of all rows.
      rows: row numbers of each split.
      config: `table` says what the columns are; `protocol` and `pipeline` are read too.
      split: "train", "validation" or "test".
      where: the cells come from, for messages and the run's record.
      protocol_text: what the splits are.
      columns: that a model was trained on; () finds them.
      name: of the data set.

    Returns:
      a source of vectors `x` [N, E] in their encoded form, with `mask` where cells are empty and `label` if there is
      one.

    Raises:
      InputError: there is no such split, or a column that cannot be modeled.
    """
    if split not in rows:
        raise no_validation(name, config.protocol, ())
    table, known = config.table, tuple(columns)
    notes: tuple[str, ...] = ()
    if not known:
        known = table_columns.find(cells, table, where)
        held = table_codes.chosen(cells, known, where)
        known = table_columns.fitted(known, [taken(c, rows["train"]) for c in held], where)
        notes = table_columns.notes(known, held, table)
    held = table_codes.chosen(cells, known, where)
    x, seen = table_codes.encode(held, known, where)
    arrays = {"x": x}
    # One mask for all splits, or none: the model is built once.
    if not seen.all():
        arrays["mask"] = seen
        gaps = [1 - c.seen.mean() for c in held if not c.seen.all()]
        share, plural = sum(gaps) / len(held), "s" if len(gaps) > 1 else ""
        notes += (f"{share:.1%} of the cells are empty and count as missing, in {len(gaps)} column{plural}",)
    label_names: tuple[str, ...] = ()
    if table.label is not None:
        arrays["label"], label_names = _labels(cells, table, where)
        notes += unlabeled.note(arrays["label"], where)
    info = Info(
        name,
        (width(known),),
        {part: len(numbers) for part, numbers in rows.items()},
        config.protocol,
        protocol_text,
        num_classes=len(label_names) or None,
        label_names=label_names,
        values="float",
        where=where,
        notes=notes,
        kind="vector",
        mask="mask" in arrays,
        columns=known,
        unlabeled="label" in arrays and unlabeled.some(arrays["label"]),
    )
    part = {key: np.ascontiguousarray(value[rows[split]]) for key, value in arrays.items()}
    return from_arrays(info, split, part, config.pipeline)


def _labels(cells: Sequence[Cells], table: Table, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the label of each row int32 [N], and the names of the labels."""
    found = next((c for c in cells if c.name == table.label), None)
    if found is None:
        raise InputError(f"{where}: has no column {table.label!r}, the label of each row; add it")
    return table_columns.labels(found, where)


def taken(cells: Cells, rows: np.ndarray) -> Cells:
    """Returns the rows int [M] of a column."""
    return Cells(cells.name, cells.text[rows], None if cells.number is None else cells.number[rows])


def row_hashes(cells: Sequence[Cells]) -> np.ndarray:
    """Returns uint64 [N], the first 8 bytes of the SHA-256 of each row, whatever the order of the columns."""
    ordered = sorted(cells, key=lambda c: c.name)
    head = "\x1f".join(c.name for c in ordered)
    # A separator that no cell of a text file is likely to hold keeps ("ab", "c") apart from ("a", "bc").
    texts = zip(*(c.text.tolist() for c in ordered))
    digests = (hashlib.sha256("\x1f".join((head, *row)).encode("utf-8", "surrogatepass")).digest() for row in texts)
    return np.array([int.from_bytes(digest[:8], "big") for digest in digests], np.uint64)
