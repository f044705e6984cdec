"""The user's own rows of numbers, taken as they are: counts above all, or vectors that are scaled already.

An .npy [N, D], or an .npz with `vectors` or `counts` [N, D], with `labels`, `groups` [N] and `mask` [N, D]. What a
likelihood can take of them is checked when it is chosen; a table, whose columns differ, is read by `table`.
"""

from __future__ import annotations

import dataclasses
import functools
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vae_jax.data import npz, numbers, unlabeled, whole
from vae_jax.data import split as split_lib
from vae_jax.data.config import DataConfig
from vae_jax.data.source import Info, Source, from_arrays, no_validation
from vae_jax.errors import InputError, either
from vae_jax.files import bounded

NAMES = ("vectors", "counts")  # of the array in an .npz; one that comes alone may have any name
_FORM = numbers.Form("counts", "rows", "[N, D]", "rows")


def load(config: DataConfig, split: str, *, strict: bool = True) -> Source:
    """Returns a split of the rows in `config.source`.

    Args:
      config: `source` names the file, `max_bytes` limits what is read.
      split: "train", "validation" or "test".
      strict: False for rows that a trained model looks at.

    Returns:
      a source of `x` [N, D], with `label` [N] and `mask` [N, D] (False where missing) where there are any.

    Raises:
      InputError: no such file, or arrays that are no rows of numbers.
    """
    path = npz.find(config.source, "vectors")
    larger = either("--data.max-bytes {bytes}", '**{{"data.max_bytes": {bytes}}}')
    held = bounded.arrays(path, config.max_bytes, fix=f"if it is yours, use {larger}" if strict else "give it in parts")
    return source(held, config, split, str(path))


def source(held: Mapping[str, np.ndarray], config: DataConfig, split: str, where: str) -> Source:
    """Returns `load` of arrays in memory, by name.

    Args:
      held: the arrays.
      config: says how they are split.
      split: "train", "validation" or "test".
      where: what the arrays come from, for messages and the run's record.

    Returns:
      the source.

    Raises:
      InputError: as `load`.
    """
    split_lib.refuse_group_file(config, where)
    found = numbers.checked(held, where, _FORM)
    x, seen, labels, groups = _narrowed(found, where), found.seen, found.labels, found.groups
    hashes = functools.partial(split_lib.number_hashes, x, "<f8")
    division = split_lib.divided(config, where, hashes, len(x), groups=groups, labels=labels)
    if split not in division.rows:
        raise no_validation("vectors", config.protocol, split_lib.validated(division))
    arrays = {"x": x} | ({} if labels is None else {"label": labels}) | ({} if seen.all() else {"mask": seen})
    known = np.zeros(0, np.int32) if labels is None else labels
    empty = int((x == 0).all(1).sum())
    notes = (f"{where}: {empty:,} of {len(x):,} rows hold zeros alone",) if empty else ()
    info = Info(
        "vectors",
        x.shape[1:],
        {part: len(rows) for part, rows in division.rows.items()},
        division.protocol,
        division.text,
        num_classes=int(known.max()) + 1 if len(known) else None,
        values="count" if x.dtype.kind in "iu" and int(x.min()) >= 0 else "float",
        where=where,
        notes=(*notes, *division.notes, *unlabeled.note(known, where)),
        kind="vector",
        mask="mask" in arrays,
        unlabeled=unlabeled.some(known),
    )
    part = {name: np.ascontiguousarray(value[division.rows[split]]) for name, value in arrays.items()}
    return dataclasses.replace(from_arrays(info, split, part, config.pipeline), division=division)


def _narrowed(found: numbers.Numbers, where: str) -> np.ndarray:
    """Returns the rows as they are kept: floats as float32, whole numbers as they are."""
    x, name = found.x, found.name
    # float32 cannot hold what float64 can.
    if x.dtype.kind == "f" and np.abs(x).max() > np.finfo(np.float32).max:
        raise InputError(f"{where}: {name} has values beyond float32; save {name} / 1e38, say")
    # As float32, in which every model computes, a larger count would be another one.
    most = max(int(x.max()), -int(x.min()))
    if most > whole.MOST and (x.dtype.kind != "f" or (x.dtype.itemsize > 4 and (np.rint(x) == x).all())):
        raise InputError(
            f"{where}: {name} has whole numbers up to {most:.10g}, but float32 is exact up to {whole.MOST:,}; "
            f"save {name} // {most // whole.MOST + 1}, or {name}.astype('float32') if the last digits are noise"
        )
    return x.astype(np.float32) if x.dtype.kind == "f" else x


def looks_so(path: Path) -> bool:
    """Says whether a file is an .npz with an array `vectors` or `counts`; of a damaged file nothing is said."""
    try:
        with zipfile.ZipFile(path) as file:
            return any(f"{name}.npy" in file.namelist() for name in NAMES)
    except (OSError, zipfile.BadZipFile):
        return False
