"""IDX files (MNIST's format): read with numpy, checked against pinned SHA-256 sums, found or downloaded.

The pinned sums are of the uncompressed bytes, so any gzip of the same data passes.
"""

from __future__ import annotations

import hashlib
import http.client
import math
import os
import struct
import urllib.request
import zlib
from pathlib import Path

import numpy as np

from vae_jax.errors import InputError
from vae_jax.files import bounded
from vae_jax.files.atomic import replacing

_MOST_BYTES = 64 << 20  # the largest pinned file, 60,000 images, has 47,040,016


def read_bytes(path: Path) -> bytes:
    """Returns the uncompressed bytes of a raw or gzipped IDX file; gzip is recognized by its first two bytes.

    No more is unpacked than the header of the file announces and the pinned files can have.
    """
    try:
        size = path.stat().st_size
        if size > _MOST_BYTES:
            raise InputError(f"{path}: {size:,} bytes, but the files of this data set have at most "
                             f"{_MOST_BYTES:,}; copy the file again")  # fmt: skip
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); copy it again, or allow reading with chmod +r"
        ) from None
    return unpack(data, path)


def unpack(data: bytes, path: Path | str) -> bytes:
    """Returns the bytes of a raw or gzipped IDX file, unpacked after its header was checked."""
    try:
        with bounded.unzipped(data) as file:
            head = file.read(4)
            rank = head[3] if len(head) == 4 else 0
            head += file.read(4 * rank)
            want = _announced(head, path) - len(head)
            return head + file.read(want + 1)  # one more, so that `parse` sees a file that is longer
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path}: the gzip data is damaged or cut off ({error}); copy the file again") from None


def _announced(data: bytes, path: Path | str) -> int:
    """Returns the length in bytes that the header at the start of `data` gives an IDX file of bytes."""
    if len(data) < 4 or data[:3] != b"\x00\x00\x08" or not 1 <= data[3] <= 4:
        raise InputError(f"{path}: not an IDX file of bytes (starts with {data[:4].hex() or 'nothing'}); copy it again")
    offset = 4 + 4 * data[3]
    if len(data) < offset:
        raise InputError(f"{path}: the IDX header is cut off at {len(data)} bytes; copy the file again")
    shape = struct.unpack(f">{data[3]}I", data[4:offset])
    want = offset + math.prod(shape)
    if want > _MOST_BYTES:
        raise InputError(f"{path}: its IDX header {shape} means {want:,} bytes, but the files of this data set have at "
                         f"most {_MOST_BYTES:,}; copy the file again")  # fmt: skip
    return want


def parse(data: bytes, path: Path | str) -> np.ndarray:
    """Returns the uint8 array that IDX bytes hold; `path` is for the message. Read-only, no copy."""
    want = _announced(data, path)
    offset = 4 + 4 * data[3]
    shape = struct.unpack(f">{data[3]}I", data[4:offset])
    if len(data) != want:
        raise InputError(f"{path}: {len(data)} bytes, but its IDX header {shape} means {want}; copy the file again")
    return np.frombuffer(data, np.uint8, offset=offset).reshape(shape)


def to_bytes(array: np.ndarray) -> bytes:
    """Returns the IDX file of a uint8 array; the inverse of `parse`."""
    return b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def verify(data: bytes, expected: str, path: Path | str) -> None:
    """Raises `InputError` unless the SHA-256 of `data` is `expected`."""
    got = hashlib.sha256(data).hexdigest()
    if got != expected:
        raise InputError(
            f"{path}: wrong checksum of the uncompressed bytes, expected {expected}, got {got}; copy the file again"
        )


def read_verified(path: Path, expected: str) -> np.ndarray:
    """Returns the array of an IDX file after its format and its checksum were checked."""
    data = read_bytes(path)
    array = parse(data, path)
    verify(data, expected, path)
    return array


def candidates(folder: Path, stem: str) -> list[Path]:
    """Returns the names under which the file `stem` (train-images-idx3-ubyte) may lie in `folder`."""
    dotted = stem.replace("-idx", ".idx")  # as some mirrors unpack it
    return [folder / name for name in (f"{stem}.gz", stem, f"{dotted}.gz", dotted)]


def find(folders: list[Path], stem: str) -> Path | None:
    """Returns the first existing file for `stem` in `folders`."""
    return next((path for folder in folders for path in candidates(folder, stem) if path.is_file()), None)


def cache_folder() -> Path:
    """Returns the user's cache folder, where downloads are kept when $VAE_JAX_DATA is unset or read-only.

    $VAE_JAX_CACHE names another one.
    """
    if named := os.environ.get("VAE_JAX_CACHE"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vae_jax"


def download(url: str, target: Path, expected: str, *, timeout: float = 20.0) -> None:
    """Fetches `url` to `target`; the file appears only when it is whole and its checksum is right.

    Args:
      url: of the gzipped file.
      target: where it goes; the folder is made if it is not there.
      expected: SHA-256 of the unpacked bytes.
      timeout: seconds without an answer after which it gives up.

    Raises:
      OSError: no network, or the folder cannot be written.
      InputError: what came is not the pinned file.
    """
    with urllib.request.urlopen(url, timeout=timeout) as response:
        data = response.read(_MOST_BYTES + 1)
    try:
        raw = unpack(data, url)
    except InputError:  # an error page, or not whole
        raw = b""
    verify(raw, expected, url)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as partial:
        partial.write_bytes(data)


def fetch_missing(name: str, stem: str, base: str, expected: str, looked: list[Path]) -> Path:
    """Downloads one missing file, or raises the line that says where it was looked for and how to provide it.

    Args:
      name: of the data set, which is the folder it goes to.
      stem: file name without `.gz`.
      base: URL of the folder that holds it.
      expected: SHA-256 of the unpacked bytes.
      looked: folders that were searched before, for the message.

    Returns:
      the path of the downloaded `.gz` file.

    Raises:
      InputError: it cannot be downloaded.
    """
    shared = os.environ.get("VAE_JAX_DATA")
    root = Path(shared) if shared and os.access(shared, os.W_OK) else cache_folder()
    target = root / name / f"{stem}.gz"
    try:
        download(f"{base}/{stem}.gz", target, expected)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        places = ", ".join(str(folder) for folder in looked) or "no folder is set"
        raise InputError(
            f"data '{name}': {stem}[.gz] not found (looked in {places}) and the download failed ({reason}); put the "
            f"four IDX files into $VAE_JAX_DATA/{name}/ or name their folder with --data.source"
        ) from None
    return target
