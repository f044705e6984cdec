"""What a file of compressed codes says of itself beside its chunks, and what is at the head of each chunk."""

from __future__ import annotations

import importlib.metadata
import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vae_jax.files import vjc

MOST_CHUNK = 4096  # images; a file may come from anywhere, and so much is computed at once for it
MOST_IMAGES = 2**31 - 1
PACKAGES = ("jaxlib", "constriction")  # the compiler decides the order of sums, the coder what the bits mean
# Images, length, chunk, batch, whether it is conditional, and two digests; after them the versions as text.
_FIXED = struct.Struct("<IIHHB8s8s")
_SUM = struct.Struct("<I")  # CRC-32 of the codes of a chunk
_LENGTH = struct.Struct("<I")  # bytes of the deflated features of a chunk, before them


class Header(NamedTuple):
    """What a .vjc file says of itself.

    Attributes:
      images: how many.
      length: codes of one image.
      chunk: images of one chunk; the last has the rest.
      batch: images that are coded side by side, the batch of the program; a chunk has one or more.
      conditional: whether chunks begin with the features of their images.
      params: the first 16 digits of the SHA-256 of the generator's parameters.
      program: the same of the program that computed the probabilities.
      made: versions of `PACKAGES` that wrote it, for messages.
    """

    images: int
    length: int
    chunk: int
    batch: int
    conditional: bool
    params: str
    program: str
    made: tuple[str, ...]

    def packed(self) -> bytes:
        """Returns it as bytes, which `header` reads."""
        digests = (bytes.fromhex(self.params), bytes.fromhex(self.program))
        fixed = _FIXED.pack(self.images, self.length, self.chunk, self.batch, self.conditional, *digests)
        return fixed + " ".join(self.made).encode()


def header(head: bytes, chunks: int, where: str) -> Header:
    """Returns the header that was read.

    Args:
      head: its bytes, of any content: a checksum tells damage, not intent.
      chunks: how many the file has.
      where: what to call the file in messages.

    Raises:
      InputError: values that no writer of this version leaves.
    """
    text = head[_FIXED.size :].decode(errors="replace")
    if len(head) < _FIXED.size or len(made := text.split(" ")) != len(PACKAGES):
        raise vjc.damaged(where, "its header")
    images, length, chunk, batch, conditional, params, program = _FIXED.unpack_from(head)
    # Bounds before memory is allocated by these numbers. The last chunk may be short, hence rounding up.
    fits = 0 < batch <= chunk <= MOST_CHUNK and 0 < images <= MOST_IMAGES and conditional in (0, 1)
    if not fits or chunks != -(-images // chunk):
        raise vjc.damaged(where, "its header")
    return Header(images, length, chunk, batch, bool(conditional), params.hex(), program.hex(), tuple(made))


def versions() -> tuple[str, ...]:
    """Returns the versions of `PACKAGES`, on which the program and its numbers depend."""
    return tuple(importlib.metadata.version(name) for name in PACKAGES)


def words(made: Sequence[str]) -> str:
    """Returns versions as messages name them: jaxlib 0.10.2, constriction 0.5.0."""
    return ", ".join(f"{name} {version}" for name, version in zip(PACKAGES, made, strict=True))


def content(codes: np.ndarray, cond: np.ndarray | None, stream: bytes) -> bytes:
    """Returns the content of a chunk: a checksum of its codes, its features [rows, F], deflated, the stream of bits."""
    head = _SUM.pack(_sum(codes))
    if cond is None:
        return head + stream
    packed = zlib.compress(cond.astype("<f4").tobytes(), 9)
    # The stream has no length of its own: it runs to the end of the chunk.
    return head + _LENGTH.pack(len(packed)) + packed + stream


def apart(content: bytes, rows: int, features: int) -> tuple[np.ndarray | None, bytes] | None:
    """Returns the features [rows, F] and the stream of bits of a chunk; None if it has no such features.

    Args:
      content: of the chunk.
      rows: its images.
      features: F; 0 where it has none.
    """
    start = _SUM.size
    if not features:
        return None, content[start:]
    if len(content) < start + _LENGTH.size:
        return None
    end = start + _LENGTH.size + _LENGTH.unpack_from(content, start)[0]
    want = 4 * rows * features
    try:
        # One byte more than can be: a chunk that unpacks to more is none of ours.
        raw = zlib.decompressobj().decompress(content[start + _LENGTH.size : end], want + 1)
    except zlib.error:
        return None
    if len(raw) != want:
        return None
    return np.frombuffer(raw, "<f4").astype(np.float32).reshape(rows, features), content[end:]


def is_of(content: bytes, codes: np.ndarray) -> bool:
    """Says whether the checksum of a chunk is that of these codes."""
    return content[: _SUM.size] == _SUM.pack(_sum(codes))


def _sum(codes: np.ndarray) -> int:
    """Returns a checksum of codes."""
    # One type and byte order, so that machines agree on the sum of equal codes.
    return zlib.crc32(np.ascontiguousarray(codes, "<i4").tobytes())
