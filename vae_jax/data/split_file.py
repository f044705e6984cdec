"""Files that say which examples each split has: .npz or .json of lists, or .csv; and files of groups."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.data.source import SPLITS
from vae_jax.errors import InputError, nearest, shown
from vae_jax.files import bounded

PATHS = "_paths"  # ends the arrays of a run's splits.npz that name files, beside those that number them
_NAMES = {"val": "validation", "valid": "validation", "dev": "validation", "training": "train", "testing": "test"}
_CSV_BYTES = 256 << 20


def read(file: str, count: int, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Returns the rows int64 of each split, ascending; a split without examples is left out.

    Args:
      file: .npz or .json with the lists `train`, `validation` and `test`, or .csv with the columns `path,split` (for
        arrays `row,split`); row numbers, or names of files.
      count: number of examples N.
      names: of the examples where these are files, relative to their folder; () where rows are meant.

    Raises:
      InputError: no such file, or one that cannot be read in one way only; an example that is not there, twice in one
        split or in two of them; nothing to train on.
    """
    where = f"data.splits: {shown(file)}"
    held = _held(Path(file).expanduser(), where, bool(names))
    number = {name: i for i, name in enumerate(names)}
    found = {part: _rows(values, part, where, count, number) for part, values in held.items()}
    if not len(found.get("train", ())):
        raise InputError(f"{where} has nothing to train on; add the list train")
    _check_apart(found, where, names)
    return {part: np.sort(found[part]) for part in SPLITS if len(found.get(part, ()))}


def groups(file: str, names: Sequence[str]) -> np.ndarray:
    """Returns the group str [N] of each file, of a .csv with the columns `path,group`.

    Args:
      file: the .csv.
      names: of the N files, relative to their folder.

    Raises:
      InputError: it cannot be read, names a file twice, or leaves one out.
    """
    where = f"data.groups: {shown(file)}"
    table = _table(Path(file).expanduser(), where, "path", "group")
    held: dict[str, str] = {}
    for path, group in table:
        if held.setdefault(path, group) != group:
            raise InputError(f"{where} gives {shown(path)} two groups, {held[path]!r} and {group!r}; keep one of them")
    if absent := [name for name in names if name not in held]:
        more = f" and {len(absent) - 1:,} more files" if len(absent) > 1 else ""
        raise InputError(f"{where} has no row for {shown(absent[0])}{more}; add a line {shown(absent[0])},GROUP")
    return np.array([held[name] for name in names])


def _held(path: Path, where: str, files: bool) -> dict[str, Any]:
    """Returns the lists of a file by split, under their names here."""
    if not path.is_file():
        raise InputError(f"{where}: no such file; name an .npz, .json or .csv file")
    suffix = path.suffix.lower()
    if suffix == ".csv":
        lists: dict[str, list[Any]] = {}
        for name, part in _table(path, where, "path" if files else "row", "split"):
            lists.setdefault(part, []).append(name if files else _whole(name, where))
        stored: Mapping[str, Any] = lists
    elif suffix == ".npz":
        # A run's own file has both; row numbers of files would mean others once files come or go.
        arrays = bounded.arrays(path, option="data.splits:")
        named = {k.removesuffix(PATHS): v for k, v in arrays.items() if k.endswith(PATHS)}
        plain = {k: v for k, v in arrays.items() if not k.endswith(PATHS)}
        stored = named if files and named else plain
    elif suffix == ".json":
        stored = _json(path, where)
    else:
        raise InputError(f"{where}: is neither .npz, .json nor .csv; save numpy.savez('splits.npz', train=rows, ...)")
    held: dict[str, Any] = {}
    for name, values in stored.items():
        part = _NAMES.get(str(name).lower(), str(name).lower())
        if part not in SPLITS:
            raise InputError(f"{where} has a split {shown(str(name))}; {nearest(part, SPLITS)} Rename or remove it")
        if part in held:
            raise InputError(f"{where} has two lists for {part}; join them")
        held[part] = values
    return held


def _json(path: Path, where: str) -> dict[str, Any]:
    try:
        held = bounded.read_json(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{where}: cannot be read as JSON ({error}); save it with json.dump") from None
    if not isinstance(held, dict) or not all(isinstance(values, list) for values in held.values()):
        raise InputError(
            f'{where}: is no object of lists; write {{"train": [...], "validation": [...], "test": [...]}}'
        )
    return held


def _table(path: Path, where: str, *columns: str) -> list[list[str]]:
    """Returns these columns of a .csv, row by row."""
    heading = ",".join(columns)
    if not path.is_file():
        raise InputError(f"{where}: no such file; name a .csv with the columns {heading}")
    if path.stat().st_size > _CSV_BYTES:
        raise InputError(f"{where}: is larger than {_CSV_BYTES >> 20} MiB; keep the columns {heading} alone")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = csv.DictReader(stream)
            if not set(columns) <= set(rows.fieldnames or ()):
                have = ",".join(rows.fieldnames or ()) or "nothing"
                raise InputError(f"{where}: its first line is {shown(have)}; make it {heading}")
            found = [[row[column] for column in columns] for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{where}: cannot be read as a table ({error}); save it as .csv in UTF-8") from None
    for line, row in enumerate(found, 2):
        if not all(row):
            raise InputError(f"{where}: row {line} lacks one of {heading}; complete or remove it")
    return found


def _whole(text: str, where: str) -> int:
    if not text.strip().removeprefix("-").isdecimal():
        raise InputError(f"{where}: row {text!r} is no row number; count the rows of the arrays from 0")
    return int(text)


def _rows(values: Any, part: str, where: str, count: int, number: Mapping[str, int]) -> np.ndarray:
    """Returns the list of one split as rows int64, each in range."""
    given = np.asarray(values) if not isinstance(values, list) or not values else np.array(values)
    if given.size == 0:
        return np.zeros(0, np.int64)
    kinds, wanted = ("US", "names of files, relative to their folder") if number else ("iu", "row numbers from 0")
    if given.ndim != 1 or given.dtype.kind not in kinds:
        fix = f"{part} = numpy.flatnonzero({part})" if given.dtype.kind == "b" and not number else f"give {wanted}"
        raise InputError(
            f"{where}: {part} holds {given.dtype} {list(given.shape)}, but must be a list of {wanted}; {fix}"
        )
    if not number:
        bad = given[(given < 0) | (given >= count)]
        if len(bad):
            raise InputError(f"{where}: {part} has row {bad[0]}, but the rows are 0 to {count - 1}; remove it")
        return given.astype(np.int64)
    texts = [str(name) for name in given.astype(str)]
    for name in texts:
        if name not in number:
            meant = nearest(name, list(number)[:1000])
            raise InputError(f"{where}: {part} has {shown(name)}, which the folder does not; {meant} Else remove it")
    return np.array([number[name] for name in texts], np.int64)


def _check_apart(found: Mapping[str, np.ndarray], where: str, names: Sequence[str]) -> None:
    """Raises InputError for an example that is listed twice: it would be trained on twice, or measured as held out."""
    seen: dict[int, str] = {}
    for part, rows in found.items():
        for row in rows.tolist():
            if row in seen:
                what = shown(names[row]) if names else f"row {row}"
                twice = f"twice in {part}" if seen[row] == part else f"in {seen[row]} and in {part}"
                raise InputError(f"{where}: {what} is {twice}; list it once")
            seen[row] = part
