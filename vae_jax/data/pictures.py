"""Image files: what a header says, checked before anything is decoded, and decoding to uint8."""

from __future__ import annotations

import contextlib
import struct
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vae_jax.errors import InputError, shown

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
# Pictures of kinds that are not read, but that every converter knows.
CONVERTIBLE = frozenset((".tif", ".tiff", ".gif", ".heic", ".avif", ".ppm", ".pgm", ".pbm", ".jp2", ".svg", ".ico"))
MAX_PIXELS = 100_000_000  # of one picture: at most 300 MB are decoded at a time
# A file is opened as one of these whatever its name says: PIL reads dozens of formats, some through other programs.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_CHANNELS = {"1": 1, "L": 1, "RGB": 3, "CMYK": 3, "YCbCr": 3}  # PIL's mode -> channels after conversion
_ORIENTATION, _SHORT = 0x0112, 3  # EXIF tag and type
# PIL warns of large pictures (our own check refuses them) and of damaged EXIF. Python's way to silence warnings is not
# safe in threads, and grain reads in several.
_quiet = threading.Lock()


class Header(NamedTuple):
    """What is known of a picture without decoding it.

    Attributes:
      height, width: in pixels, as the picture is seen (turned as its EXIF orientation says).
      channels: 1 (gray) or 3, after conversion.
      turned: whether the EXIF orientation turns or mirrors the stored pixels.
      frames: number of pictures in the file; only the first is read.
    """

    height: int
    width: int
    channels: int
    turned: bool = False
    frames: int = 1


def header(path: Path) -> Header:
    """Returns the header of an image file.

    Raises:
      InputError: no image of a kind that is read, alpha, more than 8 bits, or more than `MAX_PIXELS`.
    """
    with _open(path) as image:
        channels, turn = _channels(path, image), _turn(image)
        width, height = image.size[::-1] if turn is not None and turn.name in _SIDEWAYS else image.size
        return Header(height, width, channels, turn is not None, getattr(image, "n_frames", 1))


def decode(path: Path, shape: tuple[int, ...], resize: bool) -> np.ndarray:
    """Returns uint8 [H, W, C]; with `resize`, the short side becomes H and the center is cropped.

    Raises:
      InputError: the file is damaged, cut off, or not what its header said before.
    """
    from PIL import Image

    with _open(path) as opened:
        turn = _turn(opened)
        opened.info.pop("transparency", None)  # opaque, as its header was checked; PIL would warn of it
        image = opened.convert("L" if shape[2] == 1 else "RGB")
        image = image if turn is None else image.transpose(turn)
        if resize:
            side = min(image.size)
            left, top = (image.width - side) / 2, (image.height - side) / 2
            box = (left, top, left + side, top + side)
            image = image.resize((shape[1], shape[0]), Image.Resampling.BICUBIC, box=box)
        pixels = np.asarray(image, np.uint8)
    if pixels.size != np.prod(shape):
        raise InputError(f"{shown(path)}: changed while it was read; start again")
    return pixels.reshape(shape)


def check_regular(path: Path) -> None:
    """Checks that a path is a file, which can be read to an end.

    Raises:
      InputError: it is a link to nothing, a pipe or a device.
    """
    if not path.is_file():
        what = "a link to nothing" if path.is_symlink() else "not a regular file"
        raise InputError(f"{shown(path)}: {what}; remove it")


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Image]:
    """Yields an opened image that is small enough to decode; what goes wrong inside becomes one line."""
    from PIL import Image

    check_regular(path)
    try:
        with _quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(path, formats=_FORMATS)
    except Image.DecompressionBombError:
        raise _bomb(path) from None
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{shown(path)}: not a readable image ({_reason(error)}); remove or replace it") from None
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise _bomb(path)
        try:
            yield image
        except (OSError, ValueError, SyntaxError) as error:
            if isinstance(error, InputError):  # which is a ValueError itself
                raise
            raise InputError(
                f"{shown(path)}: the image is damaged or cut off ({error}); remove or replace it"
            ) from None


def _reason(error: Exception) -> str:
    """Returns the system's words where there are some; PIL's own repeat the path."""
    return getattr(error, "strerror", None) or f"no {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]} file"


def _bomb(path: Path) -> InputError:
    return InputError(f"{shown(path)}: more than {MAX_PIXELS // 10**6} megapixels; shrink it or remove it")


def _channels(path: Path, image: Image) -> int:
    """Returns 1 or 3, or raises what cannot be converted without loss."""
    mode = image.mode
    # PIL opens a 16-bit RGB file as 8-bit RGB: only the decoder's raw mode ("RGB;16B") still tells.
    deep = any(";16" in str(tile[-1]) for tile in getattr(image, "tile", ()))
    if deep or mode not in (*_CHANNELS, "P") or ("transparency" in image.info and _see_through(image)):
        what = f"{mode} with transparency" if "transparency" in image.info else f"{mode}{' of 16 bits' if deep else ''}"
        raise InputError(
            f"{shown(path)}: images of mode {what} (alpha or more than 8 bits) are not read; save as 8-bit RGB or gray"
        )
    if mode == "P":
        return 1 if _gray_palette(image) else 3
    return _CHANNELS[mode]


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
    colors = colors[: len(colors) // len(rawmode) * len(rawmode)].reshape(-1, len(rawmode))[:, :3]
    return bool((colors == colors[:, :1]).all())


_SIDEWAYS = ("ROTATE_90", "ROTATE_270", "TRANSPOSE", "TRANSVERSE")  # these exchange height and width


def _turn(image: Image):
    """Returns how the stored pixels are turned to be seen upright (a PIL `Transpose`), or None.

    Cameras store a portrait sideways and say so in EXIF; every viewer turns it, so training on the stored pixels
    would be on pictures that the user has never seen.
    """
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return turns.get(orientation(image.info.get("exif", b"")))


def orientation(exif: bytes) -> int:
    """Returns the orientation 1..8 of an EXIF block, 1 (upright) where it is missing or damaged, as viewers do.

    PIL's reader would decode a whole PNG for it, and warns of damage that costs no pixel.
    """
    tiff = exif.removeprefix(b"Exif\x00\x00")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if (tag, kind) == (_ORIENTATION, _SHORT):
                return value
    except struct.error:
        pass
    return 1
