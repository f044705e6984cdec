"""Arrays that a run was given in memory: kept in its folder, so that it can be resumed and measured from anywhere.

`data.npz` is written once, and `data.sha256` beside it holds its hash in the form that `sha256sum -c` reads. In
config.json the source of such data is `RUN/data.npz`, whatever the folder is called: it can be moved.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.data.config import OF_PICTURES
from vae_jax.data.memory import Given
from vae_jax.errors import InputError
from vae_jax.files.arrays import write_npz
from vae_jax.files.atomic import replacing
from vae_jax.runs import splits
from vae_jax.runs.config import Config

FILE, SUM = "data.npz", "data.sha256"
# What stands for the run's own folder in config.json.
PORTABLE = f"RUN/{FILE}"


def within(config: Config, folder: Path, given: Given, protocol: str | None = None) -> Config:
    """Returns the config of a run in `folder` that is trained on data in memory.

    Args:
      config: what to train.
      folder: of the run.
      given: its data.
      protocol: of a run that is continued; None takes that of a config for such data, and else "held-out", as `--data`
        of a file does.

    Returns:
      the config, whose source is `folder / FILE`.
    """
    protocol = protocol or (config.data.protocol if config.data.name == given.reader else "held-out")
    # Headers and names take some bytes more than the arrays.
    size = sum(value.nbytes + 1024 for value in given.arrays.values()) + (1 << 20)
    options: dict[str, Any] = {"name": given.reader, "source": str(folder / FILE), "protocol": protocol, **OF_PICTURES}
    options["max_bytes"] = max(config.data.max_bytes, size)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **options))


def portable(config: Config, folder: Path) -> Config:
    """Returns the config as config.json holds it: the folder's own data and splits are named without the folder."""
    own = {"source": PORTABLE} if is_own(config, folder) else {}
    own |= {"splits": splits.PORTABLE} if config.data.splits == str(folder / splits.FILE) else {}
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **own)) if own else config


def located(config: Config, folder: Path) -> Config:
    """Returns the config of a config.json in `folder`, with the place where the folder is now."""
    own = {"source": str(folder / FILE)} if config.data.source == PORTABLE else {}
    own |= {"splits": str(folder / splits.FILE)} if config.data.splits == splits.PORTABLE else {}
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **own)) if own else config


def is_own(config: Config, folder: Path) -> bool:
    """Says whether a run's data are in its own folder."""
    return config.data.source == str(folder / FILE)


def store(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the arrays and their hash, if they are not there.

    Raises:
      OSError: the folder cannot be written.
    """
    if (folder / SUM).is_file():
        return
    write_npz(folder / FILE, arrays)
    # The hash comes last: without it, a kill came between the two, and both are written again.
    with replacing(folder / SUM) as temporary:
        temporary.write_text(f"{_sha256(folder / FILE)}  {FILE}\n")


def check(folder: Path) -> None:
    """Checks that a run's own data are there, and are those that it was given.

    Raises:
      InputError: they are not.
    """
    file = folder / FILE
    if not file.is_file() or not (folder / SUM).is_file():
        raise InputError(
            f"{folder}: the arrays that it was trained on are not in {FILE} with {SUM}; put both back, or give the "
            f"arrays again: vj.train_run(config, {str(folder)!r}, data=images, resume=True)"
        )
    if (folder / SUM).read_text().split() != [_sha256(file), FILE]:
        raise InputError(f"{file}: is not the file that {SUM} has the hash of, so it was changed; put it back")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
