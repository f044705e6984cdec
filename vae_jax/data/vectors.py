"""The user's own rows of numbers, taken as they are: counts above all, or vectors that are scaled already.

An .npy [N, D], or an .npz with `vectors` or `counts` [N, D], and `labels` and `groups` [N]. What a likelihood can take
of them is checked when it is chosen; a table, whose columns differ, is read by `table`.
"""

from __future__ import annotations

import dataclasses
import functools
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vae_jax.data import npz, unlabeled, values
from vae_jax.data import split as split_lib
from vae_jax.data.config import DataConfig
from vae_jax.data.source import Info, Source, from_arrays, no_validation
from vae_jax.errors import InputError, either
from vae_jax.files import bounded

NAMES = ("vectors", "counts")  # of the array in an .npz; one that comes alone may have any name
_BESIDE = ("labels", "groups")


def load(config: DataConfig, split: str, *, strict: bool = True) -> Source:
    """Returns a split of the rows in `config.source`.

    Args:
      config: `source` names the file, `max_bytes` limits what is read.
      split: "train", "validation" or "test".
      strict: False for rows that a trained model looks at.

    Returns:
      a source of `x` [N, D], with `label` [N] and `mask` [N, D] (False at NaN) where there are any.

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
    x, seen = _checked(held, where)
    labels, groups = values.beside(held, len(x), "rows", where)
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


def _checked(held: Mapping[str, np.ndarray], where: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows [N, D], 0 where missing, and what is observed of them."""
    rest = [name for name in held if name not in _BESIDE]
    if len(rest) != 1:
        has = ", ".join(held) or "nothing"
        raise InputError(
            f"{where}: needs one array of rows (has: {has}); save numpy.savez('data.npz', counts=x), and labels and "
            "groups beside it"
        )
    name, x = rest[0] or "x", held[rest[0]]
    if x.ndim != 2 or 0 in x.shape:
        raise InputError(
            f"{where}: {name} must be numbers [N, D] and not empty, is {x.shape}; save {name}.reshape(len({name}), -1)"
        )
    if x.dtype.kind not in "biuf":
        raise InputError(f"{where}: {name} has type {x.dtype}; save {name}.astype('float32')")
    if x.dtype.kind == "b":
        x = x.astype(np.uint8)
    seen = ~np.isnan(x) if x.dtype.kind == "f" else np.ones(x.shape, bool)
    if x.dtype.kind == "f":
        if (bad := np.isinf(x)).any():
            raise values.endless(int(bad.sum()), int(np.flatnonzero(bad.any(1))[0]), where, name)
        if not seen.any():
            raise values.empty(name, where)
        # float32 cannot hold what float64 can; a whole number must not be rounded unseen.
        if np.abs(x[seen]).max() > np.finfo(np.float32).max:
            raise InputError(f"{where}: {name} has values beyond float32; save {name} / 1e38, say")
        x = np.where(seen, x, 0).astype(np.float32)
    return x, seen


def looks_so(path: Path) -> bool:
    """Says whether a file is an .npz with an array `vectors` or `counts`; of a damaged file nothing is said."""
    try:
        with zipfile.ZipFile(path) as file:
            return any(f"{name}.npy" in file.namelist() for name in NAMES)
    except (OSError, zipfile.BadZipFile):
        return False
