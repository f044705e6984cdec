"""The file of compressed codes, .vjc: chunks behind a header, every byte under a checksum.

8 bytes        MAGIC; its line ends do not survive a transfer as text
2, 2, 4, 4     version, length of the head, number of chunks, CRC-32 of these three, head and table; little-endian
head           whatever the writer says
8 per chunk    table: length of the chunk, its CRC-32
chunks         one after another, to the end of the file

Small files matter: of 256 images with 49 codes out of 64 each, a hundred bytes are one percent.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

from vae_jax.errors import InputError

MAGIC = b"\x89VJC\r\n\x1a\n"
VERSION = 2  # 1 had a header of deflated JSON, and was in no release
_NUMBERS, _CHECKED, _ENTRY = struct.Struct("<HHII"), struct.Struct("<HHI"), struct.Struct("<II")
_START = len(MAGIC) + _NUMBERS.size


def pack(head: bytes, chunks: Sequence[bytes]) -> bytes:
    """Returns the content of a file.

    Args:
      head: what the writer says of it, up to 65,535 bytes.
      chunks: in their order.
    """
    table = b"".join(_ENTRY.pack(len(chunk), zlib.crc32(chunk)) for chunk in chunks)
    checked = _CHECKED.pack(VERSION, len(head), len(chunks))
    numbers = _NUMBERS.pack(VERSION, len(head), len(chunks), zlib.crc32(checked + head + table))
    return b"".join([MAGIC, numbers, head, table, *chunks])


def unpack(data: bytes, where: str) -> tuple[bytes, list[bytes]]:
    """Returns the head and the chunks of a file; each is what was written.

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
    if len(data) < _START:
        raise _cut_off(where, len(data))
    version, length, count, checksum = _NUMBERS.unpack(data[len(MAGIC) : _START])
    if version != VERSION:
        raise _other_version(where, version)
    # 1. Head and table, together under one checksum; nothing is believed of them before it is right.
    begins = _START + length + _ENTRY.size * count
    if len(data) < begins:
        raise _cut_off(where, len(data))
    head, table = data[_START : _START + length], data[_START + length : begins]
    if zlib.crc32(_CHECKED.pack(version, length, count) + head + table) != checksum:
        raise damaged(where, "its header")
    # 2. The chunks take what is left, all of it.
    entries, start = list(_ENTRY.iter_unpack(table)), begins
    end = start + sum(size for size, _ in entries)
    if len(data) < end:
        raise _cut_off(where, len(data), end)
    if len(data) > end:
        raise InputError(f"{where}: has {len(data) - end:,} bytes after its end; restore the file as it was written")
    chunks = []
    for number, (size, crc) in enumerate(entries, 1):
        chunks.append(data[start : start + size])
        start += size
        if zlib.crc32(chunks[-1]) != crc:
            raise damaged(where, f"chunk {number} of {count}")
    return head, chunks


def damaged(where: str, part: str) -> InputError:
    """Returns the line for a part that is not what was written."""
    return InputError(f"{where}: {part} is damaged, so that nothing was read; restore the file as it was written")


def _other_version(where: str, version: int) -> InputError:
    fix = "update vae_jax" if version > VERSION else "decompress it with the vae_jax that wrote it"
    return InputError(f"{where}: is of version {version}, and this program reads version {VERSION}; {fix}")


def _cut_off(where: str, held: int, of: int = 0) -> InputError:
    length = f"{held:,} of {of:,} bytes" if of else f"{held:,} bytes, in its header"
    return InputError(f"{where}: is cut off after {length}; restore the file as it was written")
