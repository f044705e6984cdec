"""The user's own table: a .csv, .tsv or .parquet, or an array [N, D], as vectors whose columns are known.

The kinds of columns follow from their values (`table_columns`) or are named by `data.table`. Numeric ones are
standardized by the mean and the standard deviation of the training split, which the run remembers; empty cells are
missing values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vae_jax.data import split as split_lib
from vae_jax.data import table_codes, table_columns, table_read
from vae_jax.data.config import DataConfig
from vae_jax.data.source import Info, Source, from_arrays, no_validation
from vae_jax.data.table_options import Table
from vae_jax.data.table_read import Cells
from vae_jax.errors import InputError, option
from vae_jax.files.columns import Column, width

PROTOCOLS = {
    "standard": "the rows whose content hash (SHA-256 of the cells that are read) lies in the lowest tenth of its "
    "range are the test split, the rest is for training, no validation split; adding or removing rows moves no other",
    "random-tenth": "a tenth of the rows, drawn with numpy RandomState(0) over their numbers, is the test split, the "
    "rest is for training, no validation split",
    "full": "all rows for training, and the same rows as the test split (no validation split)",
}


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
    cells = table_read.read(path, config.max_bytes)
    kept = tuple(c for c in cells if c.name not in config.table.ignore)
    hashes = row_hashes(kept)
    rows = split_lib.rows(len(hashes), config.protocol, str(path), lambda: hashes)
    return source(cells, rows, config, split, str(path), PROTOCOLS[config.protocol], columns)


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
        arrays["label"], label_names = table_columns.labels(_label(cells, table, where), where)
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
    )
    part = {key: np.ascontiguousarray(value[rows[split]]) for key, value in arrays.items()}
    return from_arrays(info, split, part, config.pipeline)


def _label(cells: Sequence[Cells], table: Table, where: str) -> Cells:
    found = next((c for c in cells if c.name == table.label), None)
    if found is None:
        raise InputError(f"{where}: has no column {table.label!r}, the label of each row; add it")
    return found


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
