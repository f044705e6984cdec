"""What is known of large files after they were read once: kept in the user's cache folder, so that a start is quick.

An entry is a small .npz. It says what it was made of (path, size and time of change of the data), and is used for
nothing else; whatever is wrong with it, it is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vae_jax.data import idx
from vae_jax.errors import InputError
from vae_jax.files import bounded
from vae_jax.files.atomic import replacing

VERSION = 1  # of what entries hold; others are made again
_MOST_BYTES = 1 << 30  # of one entry


def _file(what: str, path: Path) -> Path:
    name = hashlib.sha256(f"{VERSION} {what} {path.absolute()}".encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return idx.cache_folder() / "index" / f"{name}.npz"


def read(what: str, path: Path, made_of: str) -> dict[str, np.ndarray] | None:
    """Returns the arrays of an entry; None where there is none of this state of the data.

    Args:
      what: kind of entry.
      path: of the data.
      made_of: text that changes whenever the entry would.
    """
    file = _file(what, path)
    try:
        held = bounded.arrays(file, _MOST_BYTES)
    except (OSError, InputError):
        return None
    stamp = held.pop("made_of", np.zeros(0, np.uint8))
    return held if stamp.dtype == np.uint8 and stamp.tobytes() == _digest(made_of) else None


def write(what: str, path: Path, made_of: str, arrays: Mapping[str, np.ndarray]) -> str | None:
    """Writes an entry, whole or not at all; returns the line that says why it cannot be kept, or None.

    Args:
      what: kind of entry.
      path: of the data.
      made_of: as for `read`.
      arrays: the entry.

    Returns:
      None where it was written, else one line for the user.
    """
    file = _file(what, path)
    try:
        with contextlib.suppress(FileExistsError):
            file.parent.mkdir(parents=True)
        with replacing(file) as temporary:
            np.savez(temporary, **arrays, made_of=np.frombuffer(_digest(made_of), np.uint8))  # type: ignore[arg-type]
    except OSError as error:
        return (
            f"{path}: what was found in it cannot be kept in {file.parent} ({error.strerror or error}), so the next "
            "start reads it again; set VAE_JAX_CACHE to a folder that can be written"
        )
    return None


def _digest(made_of: str) -> bytes:
    return hashlib.sha256(made_of.encode("utf-8", "surrogateescape")).digest()
