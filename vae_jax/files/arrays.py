"""Arrays by name in one .npz."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vae_jax.files.atomic import replacing


def write_npz(path: Path, arrays: Mapping[str, np.ndarray], *, compressed: bool = False) -> None:
    """Writes arrays whole or not at all, whatever their names; `numpy.savez` takes one called "file" for the file.

    Raises:
      OSError: the file cannot be written.
    """
    way = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", way) as held:
        for name, value in arrays.items():
            with held.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(value), allow_pickle=False)
