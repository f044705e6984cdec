"""Tables into files: .csv with a header, .parquet, or .npz of one array per column."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.data import table_read
from vae_jax.data.table_codes import text_of
from vae_jax.files.arrays import write_npz
from vae_jax.files.atomic import replacing

SUFFIXES = (".csv", ".parquet")


def write(path: Path, columns: Mapping[str, Any]) -> None:
    """Writes a table whole or not at all.

    Args:
      path: ends in .csv, or in .parquet or .npz for the types of the columns as well.
      columns: name -> array [N], in order; "" and NaN are empty cells.

    Raises:
      InputError: a .parquet without pyarrow.
      OSError: the file cannot be written.
    """
    if path.suffix.lower() == ".parquet":
        parquet = table_read.parquet(str(path))
        import pyarrow

        table = pyarrow.table({name: _typed(value) for name, value in columns.items()})
        with replacing(path) as temporary:
            parquet.write_table(table, temporary)
        return
    if path.suffix.lower() == ".npz":
        arrays = {name: table_read.kept(name, value, str(path)) for name, value in columns.items()}
        write_npz(path, arrays, compressed=True)
        return
    texts = [[text_of(cell) for cell in np.asarray(value).tolist()] for value in columns.values()]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*texts))


def _typed(value: Any) -> Any:
    """Returns an array as pyarrow takes it: words that are True and False as booleans, "" as nothing."""
    array = np.asarray(value)
    if array.dtype.kind not in "OUS":
        return array
    words = array.tolist()
    if set(words) <= {"True", "False"}:
        return np.array([word == "True" for word in words])
    return [None if word == "" else str(word) for word in words]
