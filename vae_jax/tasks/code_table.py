"""Codes as a table: one row per example, for spreadsheets and data frames; `decode` reads it back.

The columns are `path` and `label` (empty where there are none), `z_0`, `z_1`, ... (the means), `std_0`, ... of models
with a posterior, and `cond_0`, ... of what a conditional model must be decoded with. Numbers have the nine digits that
give a float32 back bit for bit.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TextIO

import numpy as np

from vae_jax.errors import InputError, command, shown
from vae_jax.evaluation.codes import Codes
from vae_jax.files import bounded
from vae_jax.files.atomic import replacing
from vae_jax.runs.inputs import class_name


def write(path: Path, codes: Codes) -> None:
    """Writes codes to a .csv, whole or not at all.

    Raises:
      InputError: the file cannot be written.
    """
    parts = {"z": codes.mean}
    if codes.log_var is not None:
        parts["std"] = np.exp(0.5 * codes.log_var.astype(np.float64))
    if codes.cond is not None:
        parts["cond"] = codes.cond
    names = [f"{name}_{i}" for name, part in parts.items() for i in range(part.shape[1])]
    numbers = np.concatenate(list(parts.values()), 1)
    labels = label_texts(codes.extra.get("label"), codes.label_names, len(numbers))
    paths = codes.paths or ("",) * len(numbers)
    rows = ((path, label, *(f"{v:.9g}" for v in row)) for path, label, row in zip(paths, labels, numbers, strict=True))
    save(path, ("path", "label", *names), rows)


def label_texts(labels: np.ndarray | None, names: Sequence[str], count: int) -> list[str]:
    """Returns the name of each example's class, its number where classes have no names, "" where it has none."""
    if labels is None:
        return [""] * count
    return ["" if label < 0 else class_name(names, int(label)) for label in labels]


def save(path: Path, columns: Sequence[str], rows: Iterator[Sequence[object]]) -> None:
    """Writes a table to a .csv, whole or not at all.

    Args:
      path: of the file.
      columns: their names, the first line.
      rows: one value per column each.

    Raises:
      InputError: the file cannot be written.
    """
    try:
        with replacing(path) as temporary, _opened(temporary, "w") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(rows)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); choose another --out") from error


def _opened(path: Path, mode: Literal["r", "w"]) -> TextIO:
    # Names of files may hold bytes that are no UTF-8: they are written as they are, and read so.
    return path.open(mode, encoding="utf-8", errors="surrogateescape", newline="")


def read(path: Path, word: str) -> dict[str, np.ndarray]:
    """Returns the codes of a .csv as `mean` float32 [N, n], and `cond` [N, F] where it has them.

    Args:
      path: an existing file.
      word: what named it, for messages.

    Raises:
      InputError: no columns z_0, z_1, ..., no row, or an entry that is no number.
    """
    if path.stat().st_size > bounded.DEFAULT_BYTES:
        raise InputError(f"{word} {path}: has more than {bounded.DEFAULT_BYTES:,} bytes; give it in parts")
    try:
        with _opened(path, "r") as file:
            lines = csv.reader(file)
            columns = next(lines, [])
            rows = [row for row in lines if row]
    except (OSError, csv.Error) as error:
        raise InputError(f"{word} {path}: cannot be read ({error}); write it again with {command('encode')}") from None
    found: dict[str, np.ndarray] = {}
    for name, prefix in (("mean", "z_"), ("cond", "cond_")):
        count = sum(column.startswith(prefix) for column in columns)
        wanted = [f"{prefix}{i}" for i in range(count)]
        if sorted(column for column in columns if column.startswith(prefix)) != sorted(wanted):
            raise InputError(
                f"{word} {path}: its columns {prefix}... are not {prefix}0 to {prefix}{count - 1}, each once; write it "
                f"again with {command('encode')}"
            )
        if count:
            found[name] = _numbers(rows, [columns.index(column) for column in wanted], wanted, f"{word} {path}")
    if "mean" not in found or not rows:
        what = "no row" if "mean" in found else "no columns z_0, z_1, ..."
        raise InputError(f"{word} {path}: has {what}; codes are written by {command('encode')}")
    return found


def _numbers(rows: Sequence[Sequence[str]], at: Sequence[int], names: Sequence[str], what: str) -> np.ndarray:
    """Returns some columns of a table as float32 [N, columns]."""
    out = np.empty((len(rows), len(at)), np.float32)
    for i, row in enumerate(rows):
        for j, column in enumerate(at):
            try:
                out[i, j] = float(row[column])
            except (ValueError, IndexError):
                seen = repr(shown(row[column])) if column < len(row) else "missing"
                raise InputError(
                    f"{what}: {names[j]} of line {i + 2} is {seen}, not a number; correct it or remove the line"
                ) from None
    return out
