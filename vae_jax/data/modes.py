"""Kinds of stored pixels (alpha, palettes, 16 bits, CMYK, one bit) and their conversion to 8-bit gray or RGB."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

Color = tuple[int, int, int]
# PIL's mode -> channels after conversion. Other modes hold 32-bit numbers or have no conversion to RGB.
_CHANNELS = {"1": 1, "L": 1, "La": 1, "LA": 1, "RGB": 3, "RGBX": 3, "RGBa": 3, "RGBA": 3, "CMYK": 3, "YCbCr": 3}
_ALPHA = ("La", "LA", "PA", "RGBa", "RGBA")
# What the decoder of a file of 16 bits calls its samples. PIL opens RGB of 16 bits as 8-bit RGB, and only this tells.
_DEEP = re.compile(r"(I|LA|RGB|RGBA);16([BLN]?)")
_BITS, _PHOTOMETRIC = 258, 262  # TIFF tags
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


class Kind(NamedTuple):
    """How a picture's pixels are stored.

    Attributes:
      channels: 1 (gray) or 3, as its content is.
      alpha: whether it may be seen through, so that a background shows.
      deep: whether a sample has 16 bits.
    """

    channels: int
    alpha: bool = False
    deep: bool = False


def kind(image: Image) -> Kind | None:
    """Returns the kind of an opened image, or None where it cannot be converted exactly."""
    mode = image.mode
    if (found := _deep(image)) is not None:
        samples = found[1]
        keyed = "transparency" in image.info
        return Kind(3 if samples.startswith("RGB") else 1, samples.endswith("A") or keyed, True)
    if max(getattr(image, "tag_v2", {}).get(_BITS, (8,))) > 8:  # the 12, 16 or 32 bits of a TIFF in another order
        return None
    alpha = mode in _ALPHA or ("transparency" in image.info and _see_through(image))
    if mode in ("P", "PA"):
        return Kind(1 if _gray_palette(image) else 3, alpha)
    return Kind(_CHANNELS[mode], alpha) if mode in _CHANNELS else None


def name(image: Image) -> str:
    """Returns what a message calls the kind of an image that is not read: "I;16 of 12 bits"."""
    bits = max(getattr(image, "tag_v2", {}).get(_BITS, (0,)))
    return f"{image.mode}{f' of {bits} bits' if bits > 8 else ''}"


def convert(
    image: Image, channels: int, background: Color, again: Callable[[], AbstractContextManager[Image]]
) -> Image:
    """Returns an image of mode L (one channel) or RGB (three), with what is behind transparent pixels.

    Args:
      image: opened, of a kind that is read.
      channels: 1 or 3, of the result.
      background: RGB that shows through alpha.
      again: opens the same file once more; 16 bits take two passes.

    Returns:
      the image, 8 bits a sample, of the stored size.
    """
    mode = "L" if channels == 1 else "RGB"
    if _deep(image) is not None:
        image = _eight(image, again)
    # An opaque table of colors changes no pixel here, so that whether it is one need not be found out again.
    through = image.mode in _ALPHA or "transparency" in image.info
    return (_composed(image, background) if through else image).convert(mode)


def _composed(image: Image, background: Color) -> Image:
    """Returns RGB, round((a v + (255 - a) b) / 255): before any resizing, or hidden colors would bleed into edges."""
    from PIL import Image as images

    if image.mode in ("RGBa", "La"):  # premultiplied, and converted in single steps only
        image = image.convert({"RGBa": "RGBA", "La": "LA"}[image.mode])
    image = image.convert("RGBA")
    whole = images.new("RGB", image.size, background)
    whole.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return whole


# 16 bits: round(255 v / 65535) = round(v / 257)


def _deep(image: Image) -> tuple[str, str] | None:
    """Returns (raw mode, samples "I", "LA", "RGB" or "RGBA") of an image of 16 bits whose bytes can be taken apart."""
    raw = {tile[-1][0] if isinstance(tile[-1], tuple) else tile[-1] for tile in getattr(image, "tile", ())}
    found = _DEEP.fullmatch(str(raw.pop())) if len(raw) == 1 else None
    return None if found is None else (found[0], found[1])


def _eight(image: Image, again: Callable[[], AbstractContextManager[Image]]) -> Image:
    """Returns an image of 16 bits as L, LA, RGB or RGBA of 8."""
    from PIL import Image as images

    raw, samples = _deep(image) or ("", "")
    key = image.info.pop("transparency", None)  # the one color, of 16 bits, that is transparent
    if samples == "I":
        values = np.asarray(image).astype(np.uint16)[..., None]
        if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:  # white is zero, which PIL minds in 8 bits alone
            values = 65535 - values
    elif samples == "LA":
        # No decoder takes both of its bytes; as four samples of one byte each they come as they are stored.
        bytes_ = np.asarray(_decoded(image, "RGBA")).astype(np.uint16)
        values = 256 * bytes_[..., ::2] + bytes_[..., 1::2]
    else:
        # PIL keeps the high byte alone. Decoded as if its byte order were the other one, it keeps the low byte.
        order = raw.rpartition(";16")[2]
        high = np.asarray(_decoded(image, raw)).astype(np.uint16)
        with again() as second:
            low = np.asarray(_decoded(second, f"{samples};16{_OTHER_BYTE[order]}"))
        values = 256 * high + low
    eight = _TABLE[values]
    if key is not None and eight.shape[2] in (1, 3):
        seen = (values != np.array(key, np.uint16)).any(-1, keepdims=True)
        eight = np.concatenate([eight, np.where(seen, np.uint8(255), np.uint8(0))], -1)
    modes = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
    return images.fromarray(eight[..., 0] if eight.shape[2] == 1 else eight, modes[eight.shape[2]])


def _decoded(image: Image, raw: str) -> Image:
    """Returns an image of 8 bits a sample, decoded as if the file held samples of another name."""
    tiles: Any = image.tile  # type: ignore[attr-defined]
    image.tile = [_renamed(tile, raw) for tile in tiles]  # type: ignore[attr-defined]
    image.load()
    return image


def _renamed(tile: Any, raw: str) -> Any:
    """Returns a tile of PIL's (codec, box, offset, arguments) with another raw mode among its arguments."""
    arguments = (raw, *tile[-1][1:]) if isinstance(tile[-1], tuple) else raw
    # A named tuple since Pillow 11, and its names are read.
    return tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:-1], arguments)


_TABLE = ((np.arange(65536) + 128) // 257).astype(np.uint8)  # 257 is odd: no value lies halfway

# Palettes and transparency


def _see_through(image: Image) -> bool:
    """Says whether a color that the file names as transparent is in use; a table of opaque colors is harmless."""
    named = image.info["transparency"]
    if image.mode == "P":
        used = np.unique(np.asarray(image))
        alphas = (
            [named[i] if i < len(named) else 255 for i in used] if isinstance(named, bytes) else 255 * (used != named)
        )
        return bool(np.min(alphas) < 255)
    return bool(np.min(np.asarray(image.convert("RGBA").getchannel("A"))) < 255)


def _gray_palette(image: Image) -> bool:
    """Says whether every color of the palette is gray, so that the picture is one channel and not three."""
    if image.palette is None:
        return False
    rawmode, table = image.palette.getdata()  # in the file's order: RGB, BGR or BGRX
    colors = np.frombuffer(bytes(table), np.uint8)
    if ";L" in rawmode:  # of a TIFF: all reds, then all greens, then all blues
        colors = colors.reshape(3, -1).T
    else:
        colors = colors[: len(colors) // len(rawmode) * len(rawmode)].reshape(-1, len(rawmode))[:, :3]
    return bool((colors == colors[:, :1]).all())
