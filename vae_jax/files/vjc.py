"""The file of compressed codes, .vjc: chunks behind a header, every byte under a checksum.

8 bytes     MAGIC; its line ends do not survive a transfer as text
2, 4, 4     version, length of the header, CRC-32 of these two and the header; little-endian
header      deflated JSON: whatever the writer says, and `chunks`, [[bytes, CRC-32], ...]
chunks      one after another, to the end of the file
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from vae_jax.errors import InputError
from vae_jax.files.bounded import JSON_BYTES

MAGIC = b"\x89VJC\r\n\x1a\n"
VERSION = 1
# What headers have in common, which would be a tenth of a small file. Part of version 1: it never changes.
_WORDS = (
    b'{"images":,"length":64,"chunk":64,"conditional":true,"conditional":false,"params":"","program":"",'
    b'"made":"jaxlib 0.10.2, constriction 0.5.0","sums":[],"chunks":[[,],['
)
_NUMBERS, _CHECKED = struct.Struct("<HII"), struct.Struct("<HI")
_HEAD = len(MAGIC) + _NUMBERS.size


def pack(header: Mapping[str, Any], chunks: Sequence[bytes]) -> bytes:
    """Returns the content of a file.

    Args:
      header: values for JSON by name, none of them `chunks`.
      chunks: in their order.
    """
    table = [[len(chunk), zlib.crc32(chunk)] for chunk in chunks]
    text = json.dumps({**header, "chunks": table}, separators=(",", ":"), allow_nan=False)
    packing = zlib.compressobj(9, zdict=_WORDS)
    packed = packing.compress(text.encode()) + packing.flush()
    numbers = _NUMBERS.pack(VERSION, len(packed), _checksum(VERSION, packed))
    return b"".join([MAGIC, numbers, packed, *chunks])


def unpack(data: bytes, where: str) -> tuple[dict[str, Any], list[bytes]]:
    """Returns the header, without its table, and the chunks of a file; each is what was written.

    Args:
      data: content of the file.
      where: what to call it in messages.

    Raises:
      InputError: another file, another version, one that is cut off or longer than it should be, or damaged: by the
        number of the chunk, counted from 1.
    """
    if not data.startswith(MAGIC):
        raise InputError(
            f"{where}: is not a file of compressed codes (.vjc), or was damaged; give one as it was written"
        )
    if len(data) < _HEAD:
        raise _cut_off(where, len(data))
    version, length, checksum = _NUMBERS.unpack(data[len(MAGIC) : _HEAD])
    if version != VERSION:
        raise InputError(f"{where}: is of version {version}, and this program reads version {VERSION}; update vae_jax")
    if len(data) < _HEAD + length:
        raise _cut_off(where, len(data))
    packed = data[_HEAD : _HEAD + length]
    if _checksum(version, packed) != checksum:
        raise damaged(where, "its header")
    header = _header(packed, where)
    table, start, chunks = header.pop("chunks"), _HEAD + length, []
    end = start + sum(size for size, _ in table)
    if len(data) < end:
        raise _cut_off(where, len(data), end)
    if len(data) > end:
        raise InputError(f"{where}: has {len(data) - end:,} bytes after its end; restore the file as it was written")
    for number, (size, crc) in enumerate(table, 1):
        chunks.append(data[start : start + size])
        start += size
        if zlib.crc32(chunks[-1]) != crc:
            raise damaged(where, f"chunk {number} of {len(table)}")
    return header, chunks


def damaged(where: str, part: str) -> InputError:
    """Returns the line for a part that is not what was written."""
    return InputError(f"{where}: {part} is damaged, so that nothing was read; restore the file as it was written")


def _cut_off(where: str, held: int, of: int = 0) -> InputError:
    length = f"{held:,} of {of:,} bytes" if of else f"{held:,} bytes, in its header"
    return InputError(f"{where}: is cut off after {length}; restore the file as it was written")


def _checksum(version: int, packed: bytes) -> int:
    return zlib.crc32(packed, zlib.crc32(_CHECKED.pack(version, len(packed))))


def _header(packed: bytes, where: str) -> dict[str, Any]:
    """Returns the values of a header whose checksum is right; somebody may have written that too."""
    try:
        unpacking = zlib.decompressobj(zdict=_WORDS)
        header = json.loads(unpacking.decompress(packed, JSON_BYTES))
    except (ValueError, zlib.error, RecursionError):
        raise damaged(where, "its header") from None
    table = header.get("chunks") if isinstance(header, dict) else None
    if not isinstance(table, list) or not all(_is_entry(entry) for entry in table):
        raise damaged(where, "the table of its chunks")
    return header


def _is_entry(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and all(type(n) is int and n >= 0 for n in entry)
