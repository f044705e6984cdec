"""What is known of image files without decoding them: headers and content hashes, looked up once for each file.

Kept in memory for the splits of one process, and for large folders in the user's cache (`index_cache`). An entry is
that of a file of one path, size and time of change, so a file that changes is looked at again, and only that one.

Two cores, 50,000 PNGs of 1 KB: 2.8 s of one core for headers and hashes. Threads take 4 s for them (Python's lock), two
processes 5 s (they start anew), so small files are read one after the other; large ones are hashed in threads.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from vae_jax.data import index_cache, pictures
from vae_jax.data.pictures import Header
from vae_jax.errors import InputError

KEEP = 2000  # folders of fewer files are looked through in a moment
LARGE = 64 << 10  # bytes from which on a file is worth a thread: what takes its time does not hold Python's lock
_PART = 1 << 20  # bytes of a file, read at a time
_MOST = 16  # folders whose files are remembered
_FIELDS = len(Header._fields)
_Out = TypeVar("_Out")


class Stamp(NamedTuple):
    """Size in bytes and time of change in nanoseconds of a file."""

    size: int
    modified: int


@dataclass
class Index:
    """The files of one folder.

    Attributes:
      root: the folder.
      headers: by stamped path.
      hashes: by stamped path, the first 8 bytes of the SHA-256 of the file.
      kept: how many entries the cache has.
      note: the line that says why it cannot be kept, or "".
    """

    root: Path
    headers: dict[tuple[str, Stamp], Header] = field(default_factory=dict)
    hashes: dict[tuple[str, Stamp], int] = field(default_factory=dict)
    kept: int = 0
    note: str = ""

    def of_headers(self, paths: Sequence[Path]) -> list[Header]:
        """Returns the header of each image.

        Raises:
          InputError: an image that cannot be read.
        """
        stamped = [_stamped(path) for path in paths]
        with pictures.hushed():
            for path, key in zip(paths, stamped, strict=True):
                if key not in self.headers:
                    self.headers[key] = pictures.header(path)
        return [self.headers[key] for key in stamped]

    def of_hashes(self, paths: Sequence[Path]) -> np.ndarray:
        """Returns uint64 [N], the first 8 bytes of the SHA-256 of each file: a new name changes nothing.

        Raises:
          InputError: a file that cannot be read.
        """
        stamped = [_stamped(path) for path in paths]
        new = {key: path for path, key in zip(paths, stamped, strict=True) if key not in self.hashes}
        sizes = [stamp.size for _, stamp in new]
        found = in_threads(_hash, list(new.values()), sum(sizes) / max(1, len(sizes)))
        self.hashes.update(zip(new, found, strict=True))
        return np.array([self.hashes[key] for key in stamped], np.uint64)

    def keep(self) -> str:
        """Writes what is new to the cache, for large folders; returns the line that says why not, or ""."""
        known = len(self.headers) + len(self.hashes)
        if known != self.kept and len(self.headers) >= KEEP:
            self.note = index_cache.write("folder", self.root, _FORM, _arrays(self)) or ""
            self.kept = known
        return self.note


_known: dict[Path, Index] = {}


def of(root: Path) -> Index:
    """Returns the index of a folder: that of this process, else that of the cache, else an empty one."""
    root = root.absolute()
    if root not in _known:
        while len(_known) >= _MOST:
            _known.pop(next(iter(_known)))
        _known[root] = _read(root)
    return _known[root]


def forget() -> None:
    """Forgets what this process knows of all folders; the cache stays."""
    _known.clear()


def in_threads(work: Callable[[Path], _Out], paths: Sequence[Path], size: float) -> Iterator[_Out]:
    """Yields what `work` returns for each path, in order; in threads where files have `size` bytes on average."""
    if size < LARGE or len(paths) < 2:
        yield from map(work, paths)
        return
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(work, paths)


def _stamped(path: Path) -> tuple[str, Stamp]:
    try:
        stat = os.stat(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    return str(path), Stamp(stat.st_size, stat.st_mtime_ns)


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be read ({error.strerror}); remove or replace it")


def _hash(path: Path) -> int:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while part := file.read(_PART):
                digest.update(part)
    except OSError as error:
        raise _unreadable(path, error) from None
    return int.from_bytes(digest.digest()[:8], "big")


# Entries as arrays

_FORM = f"names, stamps, {Header._fields}, hashes"
_NO_HEADER = -1  # in the place of a height


def _arrays(index: Index) -> dict[str, np.ndarray]:
    keys = list(dict.fromkeys([*index.headers, *index.hashes]))
    none = (_NO_HEADER,) * _FIELDS
    return {
        # No name holds a zero byte, and nothing else.
        "names": np.frombuffer("\0".join(name for name, _ in keys).encode("utf-8", "surrogateescape"), np.uint8),
        "stamps": np.array([stamp for _, stamp in keys], np.int64).reshape(len(keys), 2),
        "headers": np.array([index.headers.get(key, none) for key in keys], np.int32).reshape(len(keys), _FIELDS),
        "hashes": np.array([index.hashes.get(key, 0) for key in keys], np.uint64),
        "hashed": np.array([key in index.hashes for key in keys], bool),
    }


def _read(root: Path) -> Index:
    """Returns the index of a folder from the cache; an empty one where it has none, or one that is damaged."""
    held = index_cache.read("folder", root, _FORM)
    if held is None or not _is_whole(held):
        return Index(root)
    names = held["names"].tobytes().decode("utf-8", "surrogateescape").split("\0")
    if len(names) != len(held["stamps"]):
        return Index(root)
    keys = [(name, Stamp(*stamp)) for name, stamp in zip(names, held["stamps"].tolist(), strict=True)]
    headers = {key: _header(row) for key, row in zip(keys, held["headers"].tolist(), strict=True) if row[0] > 0}
    pairs = zip(keys, held["hashes"].tolist(), held["hashed"].tolist(), strict=True)
    hashes = {key: number for key, number, is_hashed in pairs if is_hashed}
    return Index(root, headers, hashes, len(headers) + len(hashes))


def _header(row: list[int]) -> Header:
    height, width, channels, *facts = row
    return Header(height, width, channels, *map(bool, facts))


def _is_whole(held: dict[str, np.ndarray]) -> bool:
    wanted = {"names": np.uint8, "stamps": np.int64, "headers": np.int32, "hashes": np.uint64, "hashed": np.bool_}
    if {name: value.dtype for name, value in held.items()} != {name: np.dtype(kind) for name, kind in wanted.items()}:
        return False
    n = len(held["hashes"]) if held["hashes"].ndim == 1 else -1
    shapes = {"stamps": (n, 2), "headers": (n, _FIELDS), "hashed": (n,)}
    if held["names"].ndim != 1 or any(held[name].shape != shape for name, shape in shapes.items()):
        return False
    sizes = held["headers"][:, :3]
    return bool(((sizes > 0).all(1) | (sizes[:, 0] == _NO_HEADER)).all())
