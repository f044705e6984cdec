"""Image files that are named one by one, in the order in which they are named."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vae_jax.data import folder, pictures
from vae_jax.data import split as split_lib
from vae_jax.data.config import DataConfig
from vae_jax.data.folder_files import Files, image_shape
from vae_jax.data.source import DEVICE_BYTES, Info, Source, from_arrays, not_in_memory


def load(paths: Sequence[Path], config: DataConfig) -> Source:
    """Returns images as one split, in the order of their files.

    Args:
      paths: of the images; each is there.
      config: how they are brought to one size and number of channels.

    Returns:
      a training split without labels; it is in memory up to 1 GiB of decoded pixels.

    Raises:
      InputError: images that cannot be read, or of several sizes or numbers of channels that `config` does not convert.
    """
    for path in paths:
        pictures.check_regular(path)
    root = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    shape, notes = image_shape(list(paths), root, config, None)
    files = Files(tuple(path.absolute() for path in paths), (None,) * len(paths))
    rule = split_lib.PROTOCOLS[config.protocol]
    info = Info(
        "image_folder", shape, {"train": len(paths)}, config.protocol, rule, where=str(root), notes=tuple(notes)
    )
    records = folder.FolderRecords(files, shape, folder.fit(config), None)
    if len(paths) * int(np.prod(shape)) > DEVICE_BYTES:
        folder.check_scale(config, {"train": files}, info, (), False, None)
        return Source(info, "train", len(paths), {}, not_in_memory, records, "grain", paths=files.paths)
    arrays = records.rows(np.arange(len(paths)))
    folder.check_scale(config, {"train": files}, info, [arrays["image"]], False, None)
    return dataclasses.replace(from_arrays(info, "train", arrays, "device"), paths=files.paths)
