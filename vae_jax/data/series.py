"""The user's own series: an .npy [N, T, C] of floats, or an .npz of `series`, with `labels`, `groups` [N] and `mask`.

N examples of C numbers at T times, missing where they are NaN or `mask`, [N, T, C] or [N, T], is False. To a model each
channel has mean 0 and standard deviation 1 over the training split; the mean and the deviation are kept in the run and
undone in whatever is written. Series are held in memory.
"""

from __future__ import annotations

import dataclasses
import functools
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vae_jax.data import npz, numbers, unlabeled
from vae_jax.data import split as split_lib
from vae_jax.data.config import DataConfig
from vae_jax.data.source import Info, Source, from_arrays, no_validation
from vae_jax.errors import InputError, either
from vae_jax.files import bounded
from vae_jax.spec import Units

_FORM = numbers.Form("series", "series", "[N, T, C]", "times")
MOST_CHANNELS = 16  # of a 3-axis .npy that is taken for series by its shape alone


def load(config: DataConfig, split: str, *, strict: bool = True, units: Units | None = None) -> Source:
    """Returns a split of the series in `config.source`.

    The splits are made as those of images, by the content of each series.

    Args:
      config: `source` names the file, `max_bytes` limits what is read.
      split: "train", "validation" or "test".
      strict: False for series that a trained model looks at, of which there may be one.
      units: means and deviations of the channels; None takes those of the training split.

    Returns:
      a source of `x` [N, T, C], and `label` [N] and `mask` [N, T, C] where there are any.

    Raises:
      InputError: no such file, or an array that is no series.
    """
    path = npz.find(config.source, "series")
    larger = either("--data.max-bytes {bytes}", '**{{"data.max_bytes": {bytes}}}')
    held = bounded.arrays(path, config.max_bytes, fix=f"if it is yours, use {larger}" if strict else "give it in parts")
    return source(held, config, split, str(path), units)


def source(
    held: Mapping[str, np.ndarray], config: DataConfig, split: str, where: str, units: Units | None = None
) -> Source:
    """Returns `load` of arrays in memory, by name; one that comes alone may be called "".

    Args:
      held: the arrays, as `numbers.checked` takes them.
      config: `protocol` and `pipeline` are read.
      split: "train", "validation" or "test".
      where: what the arrays come from, for messages and the run's record.
      units: as for `load`.

    Returns:
      the source.

    Raises:
      InputError: as `load`.
    """
    split_lib.refuse_group_file(config, where)
    found = numbers.checked(held, where, _FORM)
    x, seen, labels, groups = found.x, found.seen, found.labels, found.groups
    if x.dtype.kind != "f":
        # float32 holds whole numbers of 16 bits: larger ones are rounded only after their mean is taken away.
        x = x.astype(np.float64 if x.dtype.itemsize > 2 else np.float32)
    hashes = functools.partial(split_lib.number_hashes, x, "<f4")
    division = split_lib.divided(config, where, hashes, len(x), groups=groups, labels=labels)
    rows = division.rows
    if split not in rows:
        raise no_validation("series", config.protocol, split_lib.validated(division))
    note = f"{where}: each channel is standardized by the training split, and in its own units in what is written"
    notes = () if units is not None else (note,)  # of a trained run it is no news
    units = units or _units(x[rows["train"]], seen[rows["train"]], where)
    if len(units.offset) not in (1, x.shape[2]):  # series of other channels: the run says what it was trained on
        units = Units((0.0,), (1.0,))
    arrays = {"x": np.where(seen, units.within(x), np.float32(0))}
    arrays |= {} if labels is None else {"label": labels}
    arrays |= {} if seen.all() else {"mask": seen}
    known = np.zeros(0, np.int32) if labels is None else labels
    info = Info(
        "series",
        x.shape[1:],
        {part: len(chosen) for part, chosen in rows.items()},
        division.protocol,
        division.text,
        num_classes=int(known.max()) + 1 if len(known) else None,
        values="float",
        where=where,
        notes=(*notes, *division.notes, *unlabeled.note(known, where)),
        kind="sequence",
        mask="mask" in arrays,
        unlabeled=unlabeled.some(known),
        units=units,
    )
    part = {name: value[rows[split]] for name, value in arrays.items()}
    return dataclasses.replace(from_arrays(info, split, part, config.pipeline), division=division)


def _units(x: np.ndarray, seen: np.ndarray, where: str) -> Units:
    """Returns mean and standard deviation of each channel of [N, T, C], over what is observed."""
    count = np.maximum(seen.sum((0, 1)), 1)
    mean = x.sum((0, 1), dtype=np.float64) / count
    spread = np.sqrt(np.square(np.where(seen, x - mean, 0.0)).sum((0, 1)) / count)
    if not spread.any():
        raise InputError(f"{where}: every channel is constant, so there is nothing to learn; save other series")
    if not np.isfinite(mean).all() or not np.isfinite(spread).all() or np.abs(mean).max() + spread.max() > 1e38:
        raise InputError(f"{where}: values up to {np.abs(x).max():g} have no room in float32; save them / 1e38, say")
    # A channel that never changes stays as it is, about its mean.
    scale = np.where(spread > 1e-30, spread, 1.0)
    return Units(tuple(mean.tolist()), tuple(scale.tolist()))


def looks_so(path: Path) -> bool:
    """Says whether a file can hardly be anything but series: an .npz with an array `series`, or an .npy [N, T, C].

    Of an .npy the numbers are floats, T and C differ, and C is at most `MOST_CHANNELS`. Only the header is read; of a
    file that is damaged nothing is said.
    """
    try:
        stored = bounded.stored(path)
        if stored is None:
            with zipfile.ZipFile(path) as file:
                return "series.npy" in file.namelist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False
    return is_likely(stored.shape, stored.dtype)


def is_likely(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Says whether one array can hardly be anything but series, by its shape and type (`looks_so` of an .npy)."""
    return dtype.kind == "f" and len(shape) == 3 and shape[1] != shape[2] and shape[2] <= MOST_CHANNELS
