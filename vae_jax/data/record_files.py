"""array_record files of prepared data sets: found by name, their sizes checked, read by random access.

TFDS builds a reader from a folder by importing the Python classes that the folder names. A folder from elsewhere must
not choose what is imported, so nothing here asks TFDS: file names follow from the data set's name, and the layout of a
record from checked numbers (`prepared.facts`).
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from vae_jax.errors import InputError

# A Riegeli file, which array_record writes: blocks of 64 KiB that each begin with 24 bytes of header, and through
# them chunks with a header of 40 bytes: hash, data size, data hash, type and number of records, decoded size.
_BLOCK, _BLOCK_HEADER, _CHUNK_HEADER = 1 << 16, 24, 40
_PADDING = 1 << 20  # of one chunk beyond its records: names of the features, footers, positions of the chunks


def find(folder: Path, name: str, split: str) -> list[Path]:
    """Returns the record files of one split in order, all of them inside `folder`.

    Raises:
      InputError: there is none, or one is missing in the row.
    """
    pattern = re.compile(rf"{re.escape(name)}-{re.escape(split)}\.array_record-(\d{{5,}})(?:-of-(\d{{5,}}))?")
    found = sorted((int(match[1]), path) for path in folder.iterdir() if (match := pattern.fullmatch(path.name)))
    if not found:
        raise InputError(f"{folder}: cannot be read (no file {name}-{split}.array_record-00000: No such file); "
                         "prepare the data set again")  # fmt: skip
    if [number for number, _ in found] != list(range(len(found))):
        raise InputError(f"{folder}: cannot be read (record files of {split} are missing); prepare the data set again")
    return [path for _, path in found]


def check_sizes(path: Path, record_bytes: int) -> None:
    """Checks, from headers alone, that no chunk of a record file unpacks to much more than one example.

    Raises:
      ValueError: it does, or the headers are damaged.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        position = 0
        while position < size:
            header = _across(file, position, _CHUNK_HEADER)
            if len(header) < _CHUNK_HEADER:
                raise ValueError(f"{path.name} is cut off")
            _, packed, _, kind, decoded = struct.unpack("<5Q", header)
            # Chunks hold one example each, but for those that say where the examples are: a few bytes for each.
            if decoded > record_bytes + _PADDING + 64 * min(kind >> 8, size // _CHUNK_HEADER):
                raise ValueError(f"{path.name} holds a record of {decoded:,} bytes where {record_bytes:,} are needed")
            position = _end(position, _CHUNK_HEADER + packed)
            # Padding fills the rest of a block, so that the next chunk begins with a whole header.
    if position != size:
        raise ValueError(f"{path.name} is cut off")


def _across(file: IO[bytes], position: int, count: int) -> bytes:
    """Returns `count` bytes of chunk from a position, without the block headers in between."""
    out = b""
    while len(out) < count:
        if position % _BLOCK == 0:
            position += _BLOCK_HEADER
        file.seek(position)
        part = file.read(min(count - len(out), _BLOCK - position % _BLOCK))
        if not part:
            break
        out, position = out + part, position + len(part)
    return out


def _end(position: int, count: int) -> int:
    """Returns the position after `count` bytes of chunk, block headers included."""
    used = position % _BLOCK
    inside = position - used + max(used, _BLOCK_HEADER)  # after the header of a block that begins here
    blocks, rest = divmod(inside % _BLOCK - _BLOCK_HEADER + count, _BLOCK - _BLOCK_HEADER)
    return position - used + blocks * _BLOCK + (rest + _BLOCK_HEADER if rest else 0)


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, read in parts."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parse(record: bytes) -> Mapping[str, Any]:
    """Returns the features of one serialized `tf.train.Example`: bytes, or integers."""
    from tensorflow_datasets.proto import tf_example_pb2

    protos: Any = tf_example_pb2  # generated code, without types
    feature = protos.Example.FromString(record).features.feature
    return {name: value.bytes_list.value or value.int64_list.value for name, value in feature.items()}


def stack(values: list[Any], dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Returns one feature of many records, [B, *shape].

    Raises:
      ValueError: a record holds another number of values, or one that the type does not hold.
    """
    if isinstance(values[0][0], bytes):
        return np.frombuffer(b"".join(value[0] for value in values), dtype).reshape(len(values), *shape)
    wide = np.array([list(value) for value in values], np.int64).reshape(len(values), *shape)
    if wide.size and (wide.min() < np.iinfo(dtype).min or wide.max() > np.iinfo(dtype).max):
        raise ValueError(f"integers up to {wide.max()} in {dtype}")
    return wide.astype(dtype)
