"""Which examples each split of a run has: `splits.npz` in its folder, for data that came without splits.

It holds the row numbers `train`, `validation` and `test`, and for images in a folder their names (`train_paths`, ...),
and can be given back: `--data.splits RUN/splits.npz`. A run that was given a file of splits reads its own copy from
then on: the user's file may change, and no example that was trained on may come into a test split by that.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.data import Source
from vae_jax.data.split_file import PATHS
from vae_jax.files.atomic import replacing
from vae_jax.runs.config import Config

FILE = "splits.npz"
# What stands for the run's own file in config.json.
PORTABLE = f"RUN/{FILE}"


def within(config: Config, folder: Path) -> Config:
    """Returns the config of a run in `folder`, which reads its own copy of a file of splits."""
    if config.data.splits is None:
        return config
    return dataclasses.replace(config, data=dataclasses.replace(config.data, splits=str(folder / FILE)))


def store(folder: Path, source: Source) -> None:
    """Writes which examples each split has, if these were divided here and the file is not there.

    Raises:
      OSError: the folder cannot be written.
    """
    division = source.division
    # Under protocol "full" all examples are in both splits: there is nothing to keep, and nothing to give back.
    if division is None or division.protocol == "full" or (folder / FILE).exists():
        return
    held: dict[str, Any] = dict(division.rows)
    if division.names:
        held |= {f"{part}{PATHS}": np.array(division.names)[rows] for part, rows in division.rows.items()}
    with replacing(folder / FILE) as temporary:
        np.savez(temporary, **held)
