"""A SHA-256 of a split's content, so that a run is continued only on the data that it was trained on.

What is hashed follows from where the examples are, so that hashing costs less than loading them:

* arrays in memory, or read by row from an .npy: every byte. On an idle CPU core, 47 MB of MNIST take 0.03 s and a GiB
  less than a second;
* a prepared folder that is streamed: the SHA-256 of each array, which `metadata.json` holds since it was prepared;
* a folder of images that is streamed: relative name, label and size of every file, its first 64 and last 32 KiB. In a
  file of more than 96 KiB an edit that keeps size, head and tail goes unnoticed;
* anything else (computed sprites, records of the user's own): size, and 256 examples spread over the split.

The same arrays give the same hash whether they are in memory, in a prepared folder, or given by the host's reader (with
`data.limit`, a prepared folder that is streamed has a hash of its own).
"""

from __future__ import annotations

import hashlib
import weakref
from pathlib import Path

import numpy as np

from vae_jax.data import file_rows
from vae_jax.data.file_rows import FileRecords
from vae_jax.data.folder import FolderRecords
from vae_jax.data.limit import Rows
from vae_jax.data.pictures import Fit
from vae_jax.data.prepared import PreparedRecords, metadata
from vae_jax.data.source import ArrayRecords, Arrays, Records, Source
from vae_jax.errors import InputError

_SPREAD = 256  # examples that stand for a split that cannot be read whole
_HEAD, _TAIL = 64 << 10, 32 << 10  # bytes read at the ends of an image file
_SEEN: "weakref.WeakKeyDictionary[Source, str]" = weakref.WeakKeyDictionary()


def fingerprint(source: Source) -> str:
    """Returns the SHA-256 of a split's content, in hexadecimal.

    Neither where the data are nor when they were written is part of it: a copy of a folder has the same hash.

    Raises:
      InputError: an image file that cannot be read.
    """
    if source not in _SEEN:  # a sweep asks for every member of one source
        _SEEN[source] = _combined(source.size, _parts(source))
    return _SEEN[source]


def _parts(source: Source) -> dict[str, str]:
    """Returns name -> description with digest, of everything that the hash is made of."""
    if source.arrays:
        return _of_arrays(source.arrays)
    records, chosen = source.records, np.arange(source.size)
    while isinstance(records, Rows):  # of `data.limit`
        records, chosen = records.records, records.chosen[chosen]
    if isinstance(records, ArrayRecords):
        return _of_arrays({name: value[chosen] for name, value in records.arrays.items()})
    if isinstance(records, FileRecords):
        return _of_rows(records, chosen)
    if isinstance(records, PreparedRecords):
        # The stored sums are of whole splits, so the rows that `data.limit` leaves are hashed beside them.
        part = {"rows": _described(chosen.astype(np.int64))} if len(chosen) < len(records) else {}
        return _of_prepared(records) | part
    if isinstance(records, FolderRecords):
        return {"files": _of_files(records, chosen)}
    return _of_arrays(_spread(source.records, source.size))


def _combined(size: int, parts: dict[str, str]) -> str:
    text = f"{size}\n" + "".join(f"{name} {what}\n" for name, what in sorted(parts.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _of_arrays(arrays: Arrays) -> dict[str, str]:
    return {name: _described(np.asarray(value)) for name, value in arrays.items()}


def _described(value: np.ndarray) -> str:
    # The shape and type count: the bytes of [2, 8] and [4, 4] are the same. Rows are counted once for all arrays.
    digest = hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()
    return f"{value.dtype.str} {list(value.shape[1:])} {digest}"


def _of_rows(records: FileRecords, chosen: np.ndarray) -> dict[str, str]:
    """Returns what `_of_arrays` would of the rows in memory."""
    one = records.rows(chosen[:1])
    sums = file_rows.digests(records, chosen)
    return {name: f"{value.dtype.str} {list(value.shape[1:])} {sums[name]}" for name, value in one.items()}


def _of_prepared(records: PreparedRecords) -> dict[str, str]:
    sums = metadata(records.folder)["checksums"]
    first = records.rows(np.arange(1))  # for types and shapes
    return {
        name: f"{value.dtype.str} {list(value.shape[1:])} {sums.get(f'{records.split}/{name}')}"
        for name, value in first.items()
    }


def _of_files(records: FolderRecords, chosen: np.ndarray) -> str:
    paths = tuple(records.files.paths[i] for i in chosen)
    labels = [records.files.labels[i] for i in chosen]
    root = _common(paths)
    fit = records.fit
    # Hashes of before these options existed stay what they were.
    other = "" if fit in (Fit(None), Fit("crop")) else f" {fit.how} {fit.background}"
    total = hashlib.sha256(f"{records.image_shape} {fit.how is not None}{other}\n".encode())
    for path, label in zip(paths, labels, strict=True):
        try:
            with path.open("rb") as file:
                head = file.read(_HEAD)
                length = file.seek(0, 2)
                # A small file was read whole above; of a large one the tail is read as well.
                file.seek(max(length - _TAIL, len(head)))
                tail = file.read()
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); remove or replace it") from error
        total.update(f"{path.relative_to(root).as_posix()} {label} {length}\n".encode())
        total.update(head)
        total.update(tail)
    return total.hexdigest()


def _common(paths: tuple[Path, ...]) -> Path:
    """Returns the deepest folder that holds all files."""
    root = paths[0].parent
    while not all(path.is_relative_to(root) for path in (paths[0], paths[-1], min(paths), max(paths))):
        root = root.parent
    return root


def _spread(records: Records, size: int) -> dict[str, np.ndarray]:
    return records.rows(np.unique(np.linspace(0, size - 1, min(size, _SPREAD)).astype(np.int64)))
