"""Arrays of .npy, .npz and gzipped files, and JSON, read within a limit: every claim of a header is checked first.

A file from elsewhere may claim any size in a few bytes. Nothing here takes memory for what a header says before that
is compared with what the file holds and with the caller's limit.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from vae_jax.errors import InputError

JSON_BYTES = 64 << 20  # of one JSON file; a name for each of a million classes fits
DEFAULT_BYTES = 4 << 30  # dSprites, the largest of the common .npz files, takes 3 GiB
_HEADER_BYTES = 10_000  # of one array; numpy parses no more either
# Deflate cannot expand more than this: a member that claims more than its packed bytes allow is false or damaged.
_DEFLATE_RATIO = 1032
_DAMAGED = (ValueError, OSError, EOFError, KeyError, IndexError, TypeError, zipfile.BadZipFile, zlib.error,
            NotImplementedError, RuntimeError, MemoryError)  # fmt: skip


class TooLarge(InputError):
    """A file holds more bytes than its reader may take; `bytes` is how many."""

    def __init__(self, message: str, size: int):
        super().__init__(message)
        self.bytes = size


def arrays(
    path: Path, limit: int = DEFAULT_BYTES, *, option: str = "", fix: str = "", content: bytes | None = None
) -> dict[str, np.ndarray]:
    """Returns the arrays of an .npz by name, or the one of an .npy as "".

    Args:
      path: an existing file; .npy or .npz, recognized by its first bytes, as numpy does.
      limit: bytes of all arrays together, uncompressed.
      option: what named the file, put before it in messages.
      fix: what to do about a file that is too large, `{bytes}` its size; default: to give it in parts.
      content: of the file, where it was read before (to be hashed, say).

    Returns:
      arrays in memory; none of them has the dtype `object`.

    Raises:
      InputError: damaged, pickled, a header that claims what the file does not hold, two arrays of one name, or more
        than `limit` bytes (`TooLarge`).
    """
    where = f"{option} {path}".strip()
    try:
        with path.open("rb") if content is None else io.BytesIO(content) as file:
            if file.read(4) == b"PK\x03\x04" or zipfile.is_zipfile(file):
                return _members(file, where, limit, fix)
            size = file.seek(0, 2)
            file.seek(0)
            return {"": _read(file, size, where, limit, limit, fix)}
    except InputError:
        raise
    except _DAMAGED as error:
        raise damaged(where, error) from None


class Stored(NamedTuple):
    """Where the numbers of an .npy lie.

    Attributes:
      shape: of the array.
      dtype: of the numbers; none is `object`.
      offset: bytes before the first number.
      fortran: whether the first axis varies fastest, so that no row lies in one piece.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    fortran: bool

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, the numbers at one index of the first axis."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


def stored(path: Path) -> Stored | None:
    """Returns where the numbers of an .npy lie, checked as `arrays` does but not read; None for an .npz.

    Raises:
      InputError: damaged, pickled, or a header that claims what the file does not hold.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) == b"PK\x03\x04" or zipfile.is_zipfile(file):
                return None
            size = file.seek(0, 2)
            file.seek(0)
            shape, fortran, dtype = _checked(file, size, str(path))
            return Stored(shape, dtype, file.tell(), fortran)
    except InputError:
        raise
    except _DAMAGED as error:
        raise damaged(str(path), error) from None


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file.

    Raises:
      OSError: it cannot be read.
      ValueError: it is not JSON, nested deeper than Python can follow, or has more than `JSON_BYTES` bytes.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for, a device read for ever
        raise ValueError("not a regular file")
    size = path.stat().st_size
    if size > JSON_BYTES:
        raise ValueError(f"{size:,} bytes")
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError("nested too deeply") from None


def damaged(where: str, error: BaseException) -> InputError:
    """Returns the line for a file that numpy cannot read."""
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(f"{where}: cannot be read as numpy arrays ({reason}); save it with numpy.savez")


def _members(file: IO[bytes], where: str, limit: int, fix: str) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    left = limit
    with zipfile.ZipFile(file) as stored:
        for member in stored.infolist():
            name = member.filename.removesuffix(".npy")
            if name in out:
                raise InputError(f"{where}: holds two arrays {name!r}, and only one can be read; save it once")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
                # Other methods unpack without bound before a byte is returned, and numpy writes none of them.
                raise InputError(
                    f"{where}: array {name!r} is compressed by a method that numpy does not use; save it with "
                    "numpy.savez"
                )
            if member.file_size > member.compress_size * _DEFLATE_RATIO + 1024:
                raise InputError(
                    f"{where}: array {name!r} claims {member.file_size:,} bytes in {member.compress_size:,} packed "
                    "ones, more than can be; save it again with numpy.savez"
                )
            with stored.open(member) as inner:
                out[name] = _read(inner, member.file_size, f"{where}: array {name!r}", left, limit, fix)
            left -= out[name].nbytes
    return out


def _read(file: IO[bytes], size: int, where: str, left: int, limit: int, fix: str) -> np.ndarray:
    """Returns the array of a .npy stream of `size` bytes, if it takes at most `left` of the `limit`."""
    shape, fortran, dtype = _checked(file, size, where)
    want = math.prod(shape) * dtype.itemsize
    if want > left:
        total = want + limit - left
        way = fix.format(bytes=total) if fix else "give it in parts"
        raise TooLarge(f"{where}: takes {total:,} bytes, more than the limit of {limit:,}; {way}", total)
    flat: np.ndarray = np.empty(math.prod(shape), dtype)
    fill(file, flat.view(np.uint8).data if flat.nbytes else memoryview(b""))
    if fortran:
        return np.ascontiguousarray(flat.reshape(shape[::-1]).transpose())
    return flat.reshape(shape)


def _checked(file: IO[bytes], size: int, where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Returns the header of a .npy stream of `size` bytes whose numbers are all there, and leaves it at the first."""
    shape, fortran, dtype = _header(file, where)
    if dtype.hasobject or dtype.itemsize == 0:  # of items without bytes, any number would fit
        raise InputError(
            f"{where}: holds Python objects, which are not read because they can run code; save plain numbers, "
            "e.g. numpy.stack(images)"
        )
    want, held = math.prod(shape) * dtype.itemsize, size - file.tell()
    if min(shape, default=0) < 0 or want != held:
        raise InputError(
            f"{where}: its header {shape} {dtype} means {want:,} bytes, but {held:,} follow; save it again"
        )
    return shape, fortran, dtype


def _header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Returns (shape, whether in Fortran order, type) of a .npy stream, and leaves it at the first number."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise InputError(f"{where}: is of .npy version {version}; save plain numbers with numpy.savez")
    # numpy reads as much as the header says of itself, up to 4 GiB, before it looks at any of it.
    size = file.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(size, "little")
    if length > _HEADER_BYTES:
        raise InputError(f"{where}: its header takes {length:,} bytes; save plain numbers with numpy.savez")
    head = io.BytesIO(size + file.read(length))
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(head)
    return np.lib.format.read_array_header_2_0(head)


def fill(file: IO[bytes], target: memoryview) -> None:
    """Fills `target` from a file, and reads to the end mark so that a checksum there is verified.

    Raises:
      EOFError: the file ends before, or is longer.
    """
    done = 0
    while done < len(target):
        part = file.read(min(1 << 20, len(target) - done))
        if not part:
            raise EOFError(f"cut off after {done:,} of {len(target):,} bytes")
        target[done : done + len(part)] = part
        done += len(part)
    if file.read(1):
        raise EOFError(f"continues after {len(target):,} bytes")


@contextlib.contextmanager
def unzipped(data: bytes) -> Iterator[gzip.GzipFile | io.BytesIO]:
    """Opens bytes that may be gzipped (known by their first two) for reading in parts."""
    if data.startswith(b"\x1f\x8b"):
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            yield file
    else:
        yield io.BytesIO(data)
