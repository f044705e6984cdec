"""Tables in files and in memory, as columns of cells: .csv, .tsv, .parquet, and arrays [N, D].

In a .csv an empty cell is a missing value; in a column of numbers so are the words in `MISSING`. Whatever the file is
of, cells of equal content are equal here: 3, 3.0 and "3" are one number.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_jax.data import missing
from vae_jax.errors import InputError, either, option, shown
from vae_jax.files import bounded

TEXTS, PARQUETS, ARRAYS = (".csv", ".tsv"), (".parquet",), (".npy", ".npz")
SUFFIXES = (*TEXTS, *PARQUETS)
DELIMITERS = ",;\t"
# Besides the empty cell, in columns of numbers: among words "NA" may be Namibia.
MISSING = ("nan", "na", "n/a", "null", "none", "-nan", "#n/a")
_EXACT = 2**53  # float64 holds every whole number up to here
INDEX = "__index_level_0__"  # what pandas calls the numbers of rows in a .parquet


class Cells(NamedTuple):
    """One column as it was read.

    Attributes:
      name: in the header.
      text: str object [N]; "" where nothing is observed. Numbers are written the shortest way.
      number: float64 [N], NaN where nothing is observed; None for a column with words.
    """

    name: str
    text: np.ndarray
    number: np.ndarray | None = None

    @property
    def seen(self) -> np.ndarray:
        """Where a value is observed, bool [N]."""
        return self.text != ""


def read(path: Path, max_bytes: int = bounded.DEFAULT_BYTES) -> tuple[Cells, ...]:
    """Returns the columns of a table in a file.

    Args:
      path: a .csv or .tsv with a header (delimiter , ; or tab), a .parquet, or a .npy or .npz with an array [N, D].
      max_bytes: most bytes of the file, or of its arrays, uncompressed.

    Raises:
      InputError: no such file, or none that can be read in one way only.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; name a .csv, .tsv, .parquet, .npy or .npz")
    stat = path.stat()
    # Every split is read from the same file: it is parsed once, until it changes.
    return _read(path, stat.st_size, stat.st_mtime_ns, max_bytes)


@functools.lru_cache(maxsize=1)
def _read(path: Path, size: int, modified: int, max_bytes: int) -> tuple[Cells, ...]:
    del modified  # what the cache tells versions of a file apart by
    suffix = path.suffix.lower()
    if suffix not in ARRAYS and size > max_bytes:
        larger = either(f"--data.max-bytes {size}", f'**{{"data.max_bytes": {size}}}')
        more = f"if it is yours, use {larger}"
        raise InputError(f"{path}: has {size:,} bytes, and at most {max_bytes:,} are read; {more}")
    if suffix in TEXTS:
        found = _text(path)
    elif suffix in PARQUETS:
        found = _parquet(path)
    elif suffix in ARRAYS:
        found = of_arrays(bounded.arrays(path, max_bytes), path)
    else:
        raise InputError(f"{path}: {suffix or 'a file without extension'} is no table; save it as .csv or .parquet")
    _check(found, path)
    return found


def from_columns(given: Mapping[str, Any], where: str) -> tuple[Cells, ...]:
    """Returns the columns of a table in memory: name -> a list or array [N] of numbers or words, None where missing.

    Raises:
      InputError: columns of different lengths, or none.
    """
    found = tuple(_of_values(str(name), given[name], where) for name in given)
    lengths = {cells.name: len(cells.text) for cells in found}
    if len(set(lengths.values())) > 1:
        raise InputError(f"{where}: columns have different lengths {lengths}; make them equal")
    _check(found, where)
    return found


def _check(found: Sequence[Cells], where: Path | str) -> None:
    """Raises InputError for names that say nothing or the same, and for a table without a row."""
    if not found or not len(found[0].text):
        raise InputError(f"{where}: holds no row besides the header; add rows")
    names = [cells.name for cells in found]
    for number, name in enumerate(names):
        if not name:
            raise InputError(
                f"{where}: column {number + 1} has no name in the header; name it, or if it is the index of pandas, "
                "save the table with to_csv(F, index=False)"
            )
        if name in names[:number]:
            raise InputError(
                f"{where}: columns {names.index(name) + 1} and {number + 1} are both called {shown(name)}; rename one"
            )


def _text(path: Path) -> tuple[Cells, ...]:
    """Returns the columns of a .csv or .tsv."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            # The one that cuts the header into most names; of a single column none does.
            delimiter = max(DELIMITERS, key=lambda d: len(next(csv.reader([first], delimiter=d), ())))
            rows, lines = _rows(csv.reader(file, delimiter=delimiter), path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except csv.Error as error:
        raise InputError(f"{path}: cannot be read as .csv ({error}); save it again") from None
    if not rows:
        raise InputError(f"{path}: is empty; save a header with the names of the columns, and rows")
    header = [name.strip() for name in rows[0]]
    if all(_number(name) is not None for name in header):
        raise InputError(
            f"{path}: its first line holds numbers, not the names of columns; write a line of names above it"
        )
    for row, line in zip(rows[1:], lines[1:], strict=True):
        if len(row) != len(header):
            raise InputError(
                f"{path}: line {line} has {len(row)} cells, and the header {len(header)}; correct that line, where "
                'cells that hold the delimiter stand in "quotes"'
            )
    columns = zip(*rows[1:]) if len(rows) > 1 else ([] for _ in header)
    return tuple(of_texts(name, cells, comma=delimiter == ";") for name, cells in zip(header, columns))


def _rows(reader: Any, path: Path) -> tuple[list[list[str]], list[int]]:
    """Returns the rows that are not blank, and the line that each ends on."""
    del path
    rows, lines = [], []
    for row in reader:
        if row:
            rows.append(row)
            lines.append(reader.line_num)
    return rows, lines


def of_texts(name: str, cells: Iterable[str], comma: bool = False) -> Cells:
    """Returns a column of cells of text: of numbers where every observed one is a number.

    Args:
      name: of the column.
      cells: as the file has them.
      comma: whether 1,5 may be one and a half, as in files that are delimited by semicolons.
    """
    texts = [cell.strip() for cell in cells]
    numbers = []
    for text in texts:
        if not text or text.lower() in MISSING:
            numbers.append(np.nan)
            continue
        number = _number(text)
        if number is None and comma:
            number = _number(text.replace(",", "."))
        if number is None:
            return Cells(name, np.array(["" if t in ("nan", "NaN") else t for t in texts], object))
        numbers.append(number)
    return of_numbers(name, np.array(numbers, np.float64))


def of_numbers(name: str, number: np.ndarray) -> Cells:
    """Returns a column of numbers [N], NaN where nothing is observed."""
    number = np.asarray(number, np.float64)
    return Cells(name, np.array([written(v) for v in number.tolist()], object), number)


def written(number: float) -> str:
    """Returns the shortest text of a number: "3" for 3.0, "" for NaN."""
    if number != number:
        return ""
    return str(int(number)) if number.is_integer() and abs(number) < _EXACT else repr(number)


def _number(text: str) -> float | None:
    # Python reads 1_000 as a number, and nobody writes one so.
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _of_values(name: str, values: Any, where: str) -> Cells:
    """Returns a column of an array, or of a list of numbers and words."""
    array = kept(name, values, where)
    if array.dtype.kind in "iuf":
        return of_numbers(name, array.astype(np.float64))
    # A bool is not a number here, but one of two words.
    return of_texts(name, map(str, array.tolist()))


def kept(name: str, values: Any, where: str) -> np.ndarray:
    """Returns a column as an array [N] of numbers, bools or text ("" where missing), which a .npz can hold.

    Args:
      name: of the column.
      values: a list, an array or a column of a data frame, with None, NaN or pandas' NA where a value is missing.
      where: it comes from, for messages.

    Raises:
      InputError: anything but one number or word per row.
    """
    if isinstance(values, np.ma.MaskedArray):
        values = values.tolist()  # None where it is masked
    array = np.asarray(values, object if isinstance(values, list | tuple) else None)
    if array.ndim != 1:
        raise InputError(f"{where}: column {shown(name)} has shape {array.shape}; give one value per row")
    if array.dtype.kind == "O":
        several = next((v for v in array.tolist() if isinstance(v, list | tuple | np.ndarray)), None)
        if several is not None:
            raise InputError(
                f"{where}: column {shown(name)} holds a {type(several).__name__} in a row; give one number or word"
            )
        return np.array(["" if _is_missing(v) else str(v) for v in array.tolist()], str)
    if array.dtype.kind not in "biufU":
        raise InputError(
            f"{where}: column {shown(name)} holds {array.dtype}; give numbers or words, as of .astype(str)"
        )
    return array


def _is_missing(value: Any) -> bool:
    # pandas' NA is neither equal to itself nor different.
    return value is None or type(value).__name__ in ("NAType", "NaTType") or value != value


def _parquet(path: Path) -> tuple[Cells, ...]:
    """Returns the columns of a .parquet."""
    table = parquet(f"{path}").read_table(path)
    names = [name for name in table.column_names if name != INDEX]
    return tuple(_of_arrow(name, table.column(name)) for name in names)


def _of_arrow(name: str, column: Any) -> Cells:
    kind = str(column.type)
    if kind.startswith(("int", "uint", "float", "double", "halffloat")):
        values = [np.nan if v is None else float(v) for v in column.to_pylist()]
        return of_numbers(name, np.array(values, np.float64))
    return of_texts(name, ("" if v is None else str(v) for v in column.to_pylist()))


def parquet(what: str) -> Any:
    """Returns pyarrow's reader and writer of .parquet.

    Raises:
      InputError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet as module
    except ImportError:
        raise InputError(
            f"{what}: .parquet needs pyarrow, which is not installed; run pip install 'vae_jax[parquet]', or use .csv"
        ) from None
    return module


def of_arrays(held: Mapping[str, np.ndarray], where: Path | str) -> tuple[Cells, ...]:
    """Returns the columns of a table in arrays, as a .npy or .npz holds them.

    Args:
      held: one array [N, D], whose columns are x0, x1, ... or have the names in `columns` [D], and may have a `mask`
        [N, D], True where a cell is observed; or an array [N] for each column, by its name.
      where: they come from, for messages.

    Raises:
      InputError: anything else.
    """
    if held and "" not in held and all(value.ndim == 1 for value in held.values()):
        return from_columns(held, str(where))
    held = dict(held)
    names, mask = held.pop("columns", None), held.pop("mask", None)
    if len(held) != 1:
        found = ", ".join(f"{name} {list(value.shape)}" for name, value in held.items()) or "none"
        raise InputError(
            f"{where}: a table is one array [N, D], and its names an array columns [D], but there are {found}; save "
            "numpy.savez('table.npz', x=x), or a .csv"
        )
    ((name, value),) = held.items()
    value = np.asarray(value)
    if value.ndim != 2 or value.dtype.kind not in "biuf" or 0 in value.shape:
        raise InputError(
            f"{where}: {name or 'the array'} is {value.dtype} {list(value.shape)}, and a table is numbers [N, D]; save "
            f"{name or 'x'}.reshape(len({name or 'x'}), -1), or pictures with {option('data.name', 'npz')}"
        )
    if mask is not None:
        value = np.where(missing.seen(value, where, name or "x", mask, "mask", ("cells", "rows")), value, np.nan)
    given = [f"x{i}" for i in range(value.shape[1])] if names is None else [str(n) for n in np.atleast_1d(names)]
    if len(given) != value.shape[1]:
        raise InputError(f"{where}: columns names {len(given)} columns, but there are {value.shape[1]}; name each once")
    found = tuple(of_numbers(n, value[:, i].astype(np.float64)) for i, n in enumerate(given))
    _check(found, where)
    return found
