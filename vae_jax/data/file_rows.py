"""Images of an .npy that are read from the file row by row, so that it may be larger than memory.

Rows are read, not mapped: pages of a mapping count as resident memory until the system takes them back, and a file that
is cut off under a mapping kills the process without a word.

The file is read through once, for what cannot be known otherwise: the range of its numbers, whether some are missing,
and the content hash by which each image belongs to a split. This is kept (`index_cache`), and the next start reads the
header alone.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vae_jax.data import index_cache, missing, ranges, values
from vae_jax.data import split as split_lib
from vae_jax.errors import InputError, option, quoted
from vae_jax.files import bounded
from vae_jax.files.bounded import Stored
from vae_jax.spec import Units

NAME = "images"  # what messages call the one array of an .npy
_CHUNK = 16 << 20  # bytes read at a time; their float64 copies take a few times as much
KEEP = 64 << 20  # files of fewer bytes are read again sooner than an entry of the cache


class Stamp(NamedTuple):
    """What a change of a file changes: its size in bytes, and the time of the change in nanoseconds."""

    size: int
    modified: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        stat = path.stat()
        return cls(stat.st_size, stat.st_mtime_ns)


@dataclass(frozen=True)
class FileRecords:
    """Reads images of an .npy by row; picklable, and safe in threads: each call opens the file.

    Attributes:
      path: of the file.
      stored: where its numbers lie.
      stamp: of the file when it was looked through.
      shape: (H, W, C) of an image.
      units: what its numbers are mapped from, or None.
      mask: whether NaN mark what is missing.
      levels: whether its floats are gray levels.
    """

    path: Path
    stored: Stored
    stamp: Stamp
    shape: tuple[int, ...]
    units: Units | None = None
    mask: bool = False
    levels: bool = False

    def __len__(self) -> int:
        return self.stored.shape[0]

    def rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        raw = self.raw(np.asarray(index))
        seen = ~np.isnan(raw) if self.mask else None
        if seen is not None:
            raw = np.where(seen, raw, raw.dtype.type(0))
        image = _kept(raw.astype(np.uint8) if self.levels else raw, self.units, seen)
        return {"image": image} if seen is None else {"image": image, "mask": seen}

    def raw(self, index: np.ndarray) -> np.ndarray:
        """Returns the numbers of the images `index` int [B] as they are stored, [B, H, W, C].

        Raises:
          InputError: the file is not what it was when it was looked through.
        """
        out = np.empty((len(index), *self.stored.shape[1:]), self.stored.dtype)
        target, size = out.reshape(-1).view(np.uint8).data, self.stored.row_bytes
        try:
            with self.path.open("rb", buffering=0) as file:
                # Neighbors in one call: whole stretches of a file that is read in order.
                starts = np.r_[0, np.flatnonzero(np.diff(index) != 1) + 1, len(index)]
                for first, last in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
                    file.seek(self.stored.offset + int(index[first]) * size)
                    _fill(file, target[first * size : last * size])
        except EOFError:
            raise self._changed() from None
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror or error}); put it back") from None
        if Stamp.of(self.path) != self.stamp:
            raise self._changed()
        return out.reshape(len(index), *self.shape)

    def _changed(self) -> InputError:
        return InputError(f"{self.path}: changed while it was read; start again")


def _fill(file, target: memoryview) -> None:
    done = 0
    while done < len(target):
        got = file.readinto(target[done:])
        if not got:
            raise EOFError
        done += got


def _kept(raw: np.ndarray, units: Units | None, seen: np.ndarray | None = None) -> np.ndarray:
    """Returns images [B, H, W, C] as models take them, 0 where they are not `seen`."""
    if units is None:
        return values.stored(raw)
    out = ranges.within(raw, units)
    if seen is not None:
        out[~seen] = 0
    return out


class Found(NamedTuple):
    """What one reading of a file finds.

    Attributes:
      ends: the least and the greatest observed number [2], of the file's type.
      missing: whether some numbers are NaN.
      hashes: uint64 [N], or of length 0 where they were not wanted.
      whole: whether the observed numbers are.
    """

    ends: np.ndarray
    missing: bool
    hashes: np.ndarray
    whole: bool


class Looked(NamedTuple):
    """The images of a file, ready to be read.

    Attributes:
      records: of all of its rows.
      hashes: uint64 [N]; of length 0 where they were not wanted.
      notes: what the user should know.
    """

    records: FileRecords
    hashes: np.ndarray
    notes: tuple[str, ...]


def look(path: Path, stored: Stored, wanted: ranges.Wanted, strict: bool, hashed: bool) -> Looked:
    """Returns the images of an .npy, after they were checked as `values.images` and `ranges.units` check arrays.

    Args:
      path: of the file.
      stored: where its numbers lie.
      wanted: `data.range`.
      strict: as in `npz.load`.
      hashed: whether the hashes are needed.

    Returns:
      records of all rows, with the range that their numbers are mapped from.

    Raises:
      InputError: as for arrays in memory, and for a file in Fortran order.
    """
    # Of the right shape and type, but without any memory.
    blank = np.broadcast_to(np.zeros((), stored.dtype), stored.shape)
    shape = values.pictures(blank, path, NAME, strict).shape[1:]
    if stored.fortran:
        name = quoted(path)
        raise InputError(
            f"{path}: is in Fortran order, in which no image lies in one piece, and too large to be turned in memory; "
            f"save numpy.save('rows.npy', numpy.ascontiguousarray(numpy.load({name!r}, mmap_mode='r'))) and use "
            f"{option('data', 'rows.npy')}"
        )
    stamp = Stamp.of(path)
    records = FileRecords(path, stored, stamp, shape)
    found, note = _found(records, wanted, hashed)
    if stamp != Stamp.of(path):
        raise records._changed()
    if not len(found.ends):
        raise missing.empty(NAME, path)
    ends, notes = found.ends, (note,)
    levels = not strict and wanted == "auto" and found.whole and ranges.are_levels({NAME: ends})
    if levels:
        ends, notes = ends.astype(np.uint8), (note, ranges.note_levels(path, [NAME]))
    units = ranges.units({NAME: ends}, path, strict, wanted)
    if strict and wanted == "auto" and units is not None and units.offset[0] < 0:
        values.refuse_series({NAME: blank}, path)
    looked = FileRecords(path, stored, stamp, shape, units, found.missing, levels)
    if hashed and units != _expected(stored.dtype, wanted):
        # Only now it is known what models see, which is what is hashed.
        found, more = _found(looked, wanted, hashed)
        notes = (note or more,)
    return Looked(looked, found.hashes, tuple(filter(None, notes)))


def _expected(dtype: np.dtype, wanted: ranges.Wanted) -> Units | None:
    """Returns the units that most files turn out to have, so that one reading is enough for them."""
    if wanted == "auto" or dtype == np.bool_ or (dtype.kind == "f" and wanted == (0.0, 1.0)):
        return None
    return Units.between(*wanted)


@functools.lru_cache(maxsize=8)
def _found(records: FileRecords, wanted: ranges.Wanted, hashed: bool) -> tuple[Found, str | None]:
    """Returns what is in a file, from the cache or by reading it, and why that cannot be kept, if so.

    Each split of a run asks for the same.
    """
    units = records.units if records.units is not None else _expected(records.stored.dtype, wanted)
    made_of = f"{records.path.absolute()} {records.stamp} {records.stored} {units} {hashed}"
    what, count = f"rows {units}", len(records) if hashed else 0
    held = index_cache.read(what, records.path, made_of) if records.stamp.size >= KEEP else None
    if held is not None and _is_whole(held, records.stored.dtype, count):
        return Found(held["ends"], bool(held["missing"]), held["hashes"], bool(held["whole"])), None
    found = _read(records, units, hashed)
    if records.stamp.size < KEEP:
        return found, None
    return found, index_cache.write(what, records.path, made_of, {
        "ends": found.ends, "missing": np.array(found.missing), "hashes": found.hashes, "whole": np.array(found.whole),
    })  # fmt: skip


def _is_whole(held: dict[str, np.ndarray], dtype: np.dtype, count: int) -> bool:
    if set(held) != set(Found._fields):
        return False
    ends, hashes = held["ends"], held["hashes"]
    right = ends.dtype == dtype.newbyteorder("=") and ends.shape in ((0,), (2,))
    return (
        right
        and held["missing"].shape == held["whole"].shape == ()
        and hashes.shape == (count,)
        and hashes.dtype == np.uint64
    )


def _read(records: FileRecords, units: Units | None, hashed: bool) -> Found:
    """Reads a file through.

    Raises:
      InputError: it holds infinite values, or is cut off while it is read.
    """
    lows, highs, hashes = [], [], []
    holed, endless, first, whole = False, 0, 0, True
    for start, raw in _chunks(records):
        seen = None
        if raw.dtype.kind == "f":
            seen = ~np.isnan(raw)
            bad = np.isinf(raw)
            if bad.any():
                first = first if endless else start + int(np.flatnonzero(bad.reshape(len(raw), -1).any(1))[0])
                endless += int(bad.sum())
                continue
            if seen.all():
                seen = None
            else:
                holed = True
        known = raw if seen is None else raw[seen]
        if known.size:
            lows.append(known.min())
            highs.append(known.max())
            whole = whole and ranges.is_whole(known)
        if hashed:
            images = raw if seen is None else np.where(seen, raw, raw.dtype.type(0))
            with np.errstate(all="ignore"):  # of numbers that turn out to be on another range
                hashes.append(split_lib.pixel_hashes(_kept(images, units, seen)))
    if endless:
        raise missing.endless(endless, first, records.path, NAME)
    native = records.stored.dtype.newbyteorder("=")
    ends = np.array([min(lows), max(highs)], native) if lows else np.zeros(0, native)
    return Found(ends, holed, np.concatenate(hashes) if hashes else np.zeros(0, np.uint64), whole)


def _chunks(records: FileRecords, chosen: np.ndarray | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the numbers of the rows `chosen`, or of all, as they are stored, with the place of the first."""
    count = len(records) if chosen is None else len(chosen)
    step = max(1, _CHUNK // max(1, records.stored.row_bytes))
    for start in range(0, count, step):
        place = np.arange(start, min(start + step, count))
        yield start, records.raw(place if chosen is None else chosen[place])


def digests(records: FileRecords, chosen: np.ndarray) -> dict[str, str]:
    """Returns the SHA-256 of the bytes of each array of the rows `chosen`, as if they were in memory."""
    rows = hashlib.sha256(np.ascontiguousarray(chosen, np.int64).data).hexdigest()
    names = ("image", "mask") if records.mask else ("image",)
    made_of = f"{records} {rows}"
    held = index_cache.read("digests", records.path, made_of) if records.stamp.size >= KEEP else None
    if (
        held is not None
        and set(held) == set(names)
        and all(v.dtype == np.uint8 and v.size == 32 for v in held.values())
    ):
        return {name: value.tobytes().hex() for name, value in held.items()}
    sums = {name: hashlib.sha256() for name in names}
    step = max(1, _CHUNK // max(1, records.stored.row_bytes))
    for start in range(0, len(chosen), step):
        for name, value in records.rows(chosen[start : start + step]).items():
            sums[name].update(np.ascontiguousarray(value).data)
    if records.stamp.size >= KEEP:  # that it cannot be kept was said when the file was looked through
        made = {name: np.frombuffer(digest.digest(), np.uint8) for name, digest in sums.items()}
        index_cache.write("digests", records.path, made_of, made)
    return {name: digest.hexdigest() for name, digest in sums.items()}


def is_large(path: Path, pipeline: str, most: int) -> Stored | None:
    """Returns where the numbers of an .npy lie if it is to be read by rows, else None.

    Args:
      path: of an .npy or .npz.
      pipeline: `data.pipeline`.
      most: bytes of decoded images that "auto" holds in memory.
    """
    if pipeline == "device" or path.suffix.lower() != ".npy":
        return None
    stored = bounded.stored(path)
    if stored is None:
        return None
    kept = int(np.prod(stored.shape, dtype=object)) * (4 if stored.dtype.kind == "f" else 1)
    is_over = max(kept, path.stat().st_size) > most
    return stored if is_over or (pipeline == "grain" and not stored.fortran) else None
