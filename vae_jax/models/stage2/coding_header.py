"""What a file of compressed codes says of itself beside its chunks, and the features at the head of each chunk."""

from __future__ import annotations

import importlib.metadata
import struct
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from vae_jax.files import vjc

MOST_CHUNK = 4096  # images; a file may come from anywhere, and so much is computed at once for it
MOST_IMAGES = 2**31 - 1
_TYPES = {"images": int, "length": int, "chunk": int, "conditional": bool, "params": str, "program": str, "made": str,
          "sums": list}  # fmt: skip
# Bytes of the deflated features of a chunk, before them.
_LENGTH = struct.Struct("<I")


class Header(NamedTuple):
    """What a .vjc file says of itself.

    Attributes:
      images: how many.
      length: codes of one image.
      chunk: images of one chunk; the last has the rest.
      conditional: whether chunks begin with the features of their images.
      params: SHA-256 of the generator's parameters.
      program: SHA-256 of the program that computed the probabilities.
      made: versions of what wrote it, for messages.
      sums: CRC-32 of the codes of each chunk.
    """

    images: int
    length: int
    chunk: int
    conditional: bool
    params: str
    program: str
    made: str
    sums: list[int]


def checked(values: Mapping[str, Any], chunks: int, where: str) -> Header:
    """Returns the header whose values were read.

    Args:
      values: by name, of any type: the checksum of the header tells damage, not intent.
      chunks: how many the file has.
      where: what to call the file in messages.

    Raises:
      InputError: values that no writer of this version leaves.
    """
    # Types exactly: for `isinstance`, true would be a number of images.
    if values.keys() != _TYPES.keys() or any(type(values[name]) is not t for name, t in _TYPES.items()):
        raise vjc.damaged(where, "its header")
    header = Header(**values)
    # Bounds before memory is allocated by these numbers. The last chunk may be short, hence rounding up.
    fits = 0 < header.chunk <= MOST_CHUNK and 0 < header.images <= MOST_IMAGES
    if not fits or not len(header.sums) == chunks == -(-header.images // header.chunk):
        raise vjc.damaged(where, "its header")
    return header


def versions() -> str:
    """Returns the versions on which the program and its numbers depend."""
    # The compiler decides the order of sums, the coder what the bits mean.
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jaxlib", "constriction"))


def with_features(stream: bytes, cond: np.ndarray | None) -> bytes:
    """Returns the content of a chunk: its features [rows, F], deflated, before its stream of bits."""
    if cond is None:
        return stream
    packed = zlib.compress(cond.astype("<f4").tobytes(), 9)
    # The stream has no length of its own: it runs to the end of the chunk.
    return _LENGTH.pack(len(packed)) + packed + stream


def apart(content: bytes, rows: int, features: int) -> tuple[np.ndarray, bytes] | None:
    """Returns the features [rows, F] and the stream of bits of a chunk; None if it has no such features."""
    if len(content) < _LENGTH.size:
        return None
    end = _LENGTH.size + _LENGTH.unpack_from(content)[0]
    want = 4 * rows * features
    try:
        # One byte more than can be: a chunk that unpacks to more is none of ours.
        raw = zlib.decompressobj().decompress(content[_LENGTH.size : end], want + 1)
    except zlib.error:
        return None
    if len(raw) != want:
        return None
    return np.frombuffer(raw, "<f4").astype(np.float32).reshape(rows, features), content[end:]
