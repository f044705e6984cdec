"""Images as PNG inside the page, with nothing (transparency) between the tiles."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

import numpy as np

PIXELS = 3_000_000  # of one picture; more would make the file slow to load


class Picture(NamedTuple):
    """One PNG.

    Attributes:
      uri: the file, as a `data:` address.
      width: in pixels.
      height: in pixels.
    """

    uri: str
    width: int
    height: int


def tiles(images: np.ndarray, *, group: int = 1, shown: int | None = None) -> Picture:
    """Returns one picture of a grid of images [R, S, H, W, C] in [0, 1].

    Args:
      images: rows of images.
      group: rows that stand together; a wider gap follows each group.
      shown: how many of the images are real, row by row; the others are left empty. None: all.
    """
    from PIL import Image

    from vae_jax.figures.grid import enlargement, mosaic, offsets

    rows, columns, height, width, _ = images.shape
    tile = 64 if rows * columns * 64 * 64 <= PIXELS else 1
    picture = mosaic(images, group=group, tile=tile)
    factor = enlargement(height, width, tile)
    opaque = np.zeros(picture.shape[:2], np.uint8)
    tops, lefts = offsets(rows, height * factor, group), offsets(columns, width * factor)
    for i in range(rows * columns if shown is None else shown):
        top, left = tops[i // columns], lefts[i % columns]
        opaque[top : top + height * factor, left : left + width * factor] = 255
    out = io.BytesIO()
    Image.fromarray(np.dstack([picture, opaque])).save(out, "PNG", optimize=True)
    text = base64.b64encode(out.getvalue()).decode()
    return Picture(f"data:image/png;base64,{text}", picture.shape[1], picture.shape[0])
