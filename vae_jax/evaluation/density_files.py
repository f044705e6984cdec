"""Files of a fitted density of codes: KIND.json says what it is, KIND.npz holds its numbers.

KIND.json has a checksum of both, so that two files that do not belong together are noticed.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.errors import InputError
from vae_jax.evaluation.expost import KINDS, ExPost
from vae_jax.files import bounded
from vae_jax.files.atomic import jsonable, replacing, write_json


def save(density: ExPost, folder: Path) -> Path:
    """Writes KIND.npz and KIND.json into the folder, and returns the path of the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    held: dict[str, Any] = {"shift": density.shift, "scale": density.scale}
    # The prefix keeps the parameters apart from shift and scale.
    held |= {f"p/{name}": value for name, value in density.arrays.items()}
    with replacing(folder / f"{density.kind}.npz") as temporary:
        np.savez(temporary, **held)
        # Read back before the rename: the checksum is of the bytes on disk.
        numbers = temporary.read_bytes()
    path = folder / f"{density.kind}.json"
    about = jsonable({"kind": density.kind, **density.about})
    # Last, so that a kill in between leaves a pair whose checksum does not match.
    write_json(path, {**about, "sha256": _checksum(about, numbers)})
    return path


def load(path: Path) -> ExPost:
    """Returns the density that `save` wrote; `path` is its .json.

    Raises:
      InputError: files that are not there, or cannot be read.
    """
    try:
        about, numbers = bounded.read_json(path), path.with_suffix(".npz").read_bytes()
        wanted = about.pop("sha256", None)  # densities of version 0.1 have none
        if wanted not in (None, _checksum(about, numbers)):
            raise ValueError(f"it and {path.stem}.npz do not match their checksum")
        # From the bytes that were checked, not from a second look at the file.
        held = bounded.arrays(path.with_suffix(".npz"), content=numbers)
        # Taken out of both: what remains is `about` and the parameters.
        kind, shift, scale = about.pop("kind"), held.pop("shift"), held.pop("scale")
    except (OSError, ValueError, KeyError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read ({error}); write it again with `vae-jax fit-prior`") from None
    if kind not in KINDS:
        raise InputError(f"{path}: {kind!r} is no density of codes; write it again with `vae-jax fit-prior`")
    return ExPost(kind, shift, scale, {name.removeprefix("p/"): value for name, value in held.items()}, about)


def _checksum(about: dict[str, Any], numbers: bytes) -> str:
    # Sorted: the order of the keys is no part of the content.
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode() + numbers).hexdigest()
