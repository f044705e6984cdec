"""What `vae-jax data list` and `vae-jax data prepare` show and do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vae_jax.data import cifar10, idx, mnist, prepared
from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError


@dataclass(frozen=True)
class Report:
    """What `prepare` found and wrote.

    Attributes:
      name: registry name.
      folder: the TFDS folder; name it with `--data.source`, or set TFDS_DATA_DIR for mnist and fashion_mnist.
      where: where the raw data were found.
      sizes: examples in each split written.
      checksums: SHA-256 of the uncompressed IDX files, or of each array of each split ("train/image").
      existed: True if the folder was there already and nothing was written.
      notes: what the user should know about how the raw data were read.
    """

    name: str
    folder: str
    where: str
    sizes: Mapping[str, int]
    checksums: Mapping[str, str]
    existed: bool
    notes: tuple[str, ...] = ()


def where(name: str) -> str:
    """Returns where a data set that is read would be read from now, or what is missing; opens no file."""
    if name == "cifar10":
        return cifar10.where()
    if name not in mnist.EDITIONS:
        return "yours: --data PATH"
    if folder := prepared.find(name, None):
        return str(folder)
    looked = mnist.folders(name, None)
    found = [idx.find(looked, stem) for stem in mnist.EDITIONS[name].sha256]
    missing = sum(path is None for path in found)
    if not missing:
        return ", ".join(dict.fromkeys(str(path.parent) for path in found if path))
    return f"not here ({missing} of {len(found)} files missing): set VAE_JAX_DATA, or it is downloaded when first used"


def prepare(config: DataConfig, data_dir: str | Path | None) -> Report:
    """Writes the TFDS folder of a data set in array_record form, reads its checksums back, and reports.

    Args:
      config: of a known data set; `source` None looks where `load` looks.
      data_dir: TFDS root; None is $TFDS_DATA_DIR.

    Returns:
      what was found and written.

    Raises:
      InputError: no or unwritable `data_dir`, or raw data that are missing or damaged; nothing is written then.
    """
    root = data_dir or os.environ.get("TFDS_DATA_DIR")
    if not root:
        raise InputError("data prepare: no folder to write to; set TFDS_DATA_DIR or pass --data-dir")
    root = Path(root).expanduser()
    existing = next(path for path in (root, *root.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InputError(f"data prepare: {root} cannot be written; choose another folder with --data-dir")

    from vae_jax.data import builders  # loads tensorflow_datasets

    name = config.name
    folder, existed, notes = builders.prepare(config, root)
    facts = prepared.metadata(folder)
    checksums = facts["checksums"]
    if name in mnist.EDITIONS:  # read back and compared with the pinned sums
        for file in ("train", "test"):
            mnist.read_prepared(name, folder, file)
        checksums = mnist.EDITIONS[name].sha256
    return Report(name, str(folder), facts["where"], facts["sizes"], checksums, existed, notes)
