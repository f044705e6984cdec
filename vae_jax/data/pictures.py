"""Image files: what a header says, checked before anything is decoded, and decoding to uint8 of one size."""

from __future__ import annotations

import contextlib
import logging
import struct
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from vae_jax.data import modes
from vae_jax.errors import InputError, shown

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
# Pictures of kinds that are not read, but that every converter knows.
CONVERTIBLE = frozenset((".gif", ".heic", ".avif", ".ppm", ".pgm", ".pbm", ".jp2", ".svg", ".ico"))
MAX_PIXELS = 100_000_000  # of one picture: at most 300 MB are decoded at a time
# A file is opened as one of these whatever its name says: PIL reads dozens of formats, some through other programs.
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")
_ORIENTATION, _SHORT = 0x0112, 3  # EXIF tag and type
_WIDTH, _HEIGHT = 256, 257  # TIFF tags
# What PIL raises for files that are not what they say; a missing tag of a TIFF is a KeyError.
_FAULTS = (OSError, ValueError, SyntaxError, LookupError, TypeError, EOFError, struct.error, ArithmeticError)
# PIL warns of large pictures (our own check refuses them) and of damaged EXIF. Python's way to silence warnings is not
# safe in threads, and grain reads in several. A picture of 16 bits is opened again while it is open.
_quiet = threading.RLock()
_hushed = False


class Broken(InputError):
    """A file that cannot be read, is damaged, or of a kind that is not read: `data.skip_broken` passes over these."""


class Header(NamedTuple):
    """What is known of a picture without decoding it.

    Attributes:
      height, width: in pixels, as the picture is seen (turned as its EXIF orientation says).
      channels: 1 (gray) or 3, after conversion.
      turned: whether the EXIF orientation turns or mirrors the stored pixels.
      several: whether the file holds several pictures; only the first is read.
      alpha: whether a background shows through.
      deep: whether its samples have 16 bits.
    """

    height: int
    width: int
    channels: int
    turned: bool = False
    several: bool = False
    alpha: bool = False
    deep: bool = False


@dataclass(frozen=True)
class Fit:
    """How a picture becomes one of a given size, and what is behind it.

    Attributes:
      how: None keeps its size. "crop" cuts the center out of what is too long, "pad" puts the whole picture on the
        background, "stretch" gives up its ratio of sides.
      background: RGB that shows through alpha and beside padded pictures.
    """

    how: Literal["crop", "pad", "stretch"] | None = None
    background: modes.Color = (255, 255, 255)


def header(path: Path) -> Header:
    """Returns the header of an image file.

    Raises:
      Broken: no image of a kind that is read, or more than `MAX_PIXELS`.
    """
    with _open(path) as image:
        kind, turn = modes.kind(image), _turn(image)
        if kind is None:
            raise Broken(
                f"{shown(path)}: images of mode {modes.name(image)} are not read; save as 8-bit RGB or gray, or remove "
                "it"
            )
        width, height = _stored_size(image)
        if turn is not None and turn.name in _SIDEWAYS:
            width, height = height, width
        several = getattr(image, "is_animated", False)
        return Header(height, width, kind.channels, turn is not None, several, kind.alpha, kind.deep)


def decode(path: Path, shape: tuple[int, ...], fit: Fit) -> np.ndarray:
    """Returns uint8 [H, W, C], a picture in the given shape; resizing is bicubic with anti-aliasing.

    Raises:
      InputError: the file is damaged, cut off, or not what its header said before.
    """
    with _open(path) as opened:
        turn = None if opened.format == "TIFF" else _turn(opened)  # PIL turns these itself, when it decodes them
        image = modes.convert(opened, shape[2], fit.background, lambda: _open(path))
        image = image if turn is None else image.transpose(turn)
        if fit.how is not None:
            image = _fitted(image, shape[0], shape[1], fit)
        pixels = np.asarray(image, np.uint8)
    if pixels.shape[:2] != tuple(shape[:2]):
        raise InputError(f"{shown(path)}: changed while it was read; start again")
    return pixels.reshape(shape)


def check(path: Path) -> None:
    """Checks that a file can be read to its end; this decodes it.

    Raises:
      Broken: it cannot.
    """
    head = header(path)
    decode(path, (head.height, head.width, head.channels), Fit())


def _fitted(image: Image, height: int, width: int, fit: Fit) -> Image:
    """Returns an image of the given size: the center that has its ratio of sides, all of it on a background, or all."""
    from PIL import Image as images

    bicubic = images.Resampling.BICUBIC
    if fit.how == "stretch":
        return image.resize((width, height), bicubic)
    # Whether the picture is the wider one, without rounding.
    is_wide = image.width * height > image.height * width
    if fit.how == "crop":
        across = image.height * width / height if is_wide else image.width
        down = image.height if is_wide else image.width * height / width
        left, top = (image.width - across) / 2, (image.height - down) / 2
        return image.resize((width, height), bicubic, box=(left, top, left + across, top + down))
    inner = width if is_wide else max(1, round(image.width * height / image.height))
    tall = max(1, round(image.height * width / image.width)) if is_wide else height
    color = images.new("RGB", (1, 1), fit.background).convert(image.mode).getpixel((0, 0))
    whole = images.new(image.mode, (width, height), color)
    whole.paste(image.resize((inner, tall), bicubic), ((width - inner) // 2, (height - tall) // 2))
    return whole


def check_regular(path: Path) -> None:
    """Checks that a path is a file, which can be read to an end.

    Raises:
      Broken: it is a link to nothing, a pipe or a device.
    """
    if not path.is_file():
        what = "a link to nothing" if path.is_symlink() else "not a regular file"
        raise Broken(f"{shown(path)}: {what}; remove it")


@contextlib.contextmanager
def _open(path: Path) -> Iterator[Image]:
    """Yields an opened image that is small enough to decode; what goes wrong inside becomes one line."""
    from PIL import Image

    check_regular(path)
    try:
        with _silent():
            image = Image.open(path, formats=_FORMATS)
    except Image.DecompressionBombError:
        raise _bomb(path) from None
    except _FAULTS as error:
        raise Broken(f"{shown(path)}: not a readable image ({_reason(error)}); remove or replace it") from None
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise _bomb(path)
        try:
            # PIL warns of TIFF's tags when it decodes as well.
            with _silent() if image.format == "TIFF" else contextlib.nullcontext():
                yield image
        except _FAULTS as error:
            if isinstance(error, InputError):  # which is a ValueError itself
                raise
            raise Broken(f"{shown(path)}: the image is damaged or cut off ({error}); remove or replace it") from None


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Silences PIL until the block ends, in one thread at a time."""
    if _hushed:
        yield
        return
    log = logging.getLogger("PIL.TiffImagePlugin")
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level, _ = log.level, log.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            log.setLevel(level)


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Silences PIL for many files at once: for each of them it takes as long as reading its header.

    For the main thread alone, while no other reads pictures; what it starts itself inside may.
    """
    global _hushed
    with _silent():
        before, _hushed = _hushed, True
        try:
            yield
        finally:
            _hushed = before


def _reason(error: Exception) -> str:
    """Returns the system's words where there are some; PIL's own repeat the path."""
    return getattr(error, "strerror", None) or f"no {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]} file"


def _bomb(path: Path) -> Broken:
    return Broken(f"{shown(path)}: more than {MAX_PIXELS // 10**6} megapixels; shrink it or remove it")


_SIDEWAYS = ("ROTATE_90", "ROTATE_270", "TRANSPOSE", "TRANSVERSE")  # these exchange height and width


def _stored_size(image: Image) -> tuple[int, int]:
    """Returns the width and height of the stored pixels; PIL's size of a TIFF is that of the turned ones or not."""
    tags = getattr(image, "tag_v2", None)
    return image.size if tags is None else (int(tags[_WIDTH]), int(tags[_HEIGHT]))


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
    tags = getattr(image, "tag_v2", None)
    found = orientation(image.info.get("exif", b"")) if tags is None else tags.get(_ORIENTATION)
    return turns.get(found)


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
