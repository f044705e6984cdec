"""Grids of images: one picture of whole pixels, with labels beside it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from vae_jax.errors import InputError, either, note
from vae_jax.files.atomic import replacing

DPI = 100
TILE = 64  # small images are enlarged by a whole factor to about this many pixels
GAP = 2
# Of one picture: some hundred examples would make one that no screen shows. Rows of large images may be more pixels.
MOST_HEIGHT, LEAST_ROWS = 4300, 24
_INK, _PAPER = "#222222", "white"
_LETTER, _LINE = 6.2, 15  # pixels of one letter and of one line at 8 points


def pixels(images: np.ndarray) -> np.ndarray:
    """Returns uint8 [..., H, W, 3] for images in [0, 1], [..., H, W, C].

    Values outside are cut for display only, NaN is magenta; one channel is gray, of two the first is, and of more than
    three the first three are RGB (`channels_shown` says so).
    """
    images = np.asarray(images, np.float32)
    images = images[..., : 3 if images.shape[-1] > 2 else 1]
    broken = np.isnan(images).any(-1)
    out = np.round(255 * np.clip(np.nan_to_num(images), 0, 1)).astype(np.uint8)
    out = np.broadcast_to(out, (*out.shape[:-1], 3)).copy()
    out[broken] = (255, 0, 255)
    return out


def channels_shown(channels: int) -> str:
    """Returns what a title adds where a picture cannot show all channels, or ""."""
    return "" if channels in (1, 3) else f"channel 1 of {channels}" if channels == 2 else f"channels 1-3 of {channels}"


def mosaic(images: np.ndarray, *, group: int = 1, tile: int = TILE) -> np.ndarray:
    """Returns one uint8 picture [Y, X, 3] of a grid of images [R, S, H, W, C] in [0, 1].

    Args:
      images: rows of images.
      group: rows that stand together; a wider gap follows each group.
      tile: the size in pixels that small images are enlarged to, by the nearest whole factor, pixels kept sharp.
    """
    _check_images(images)
    tiles = pixels(images)
    rows, columns, height, width, _ = tiles.shape
    factor = enlargement(height, width, tile)
    tiles = tiles.repeat(factor, 2).repeat(factor, 3)
    tops, lefts = offsets(rows, height * factor, group), offsets(columns, width * factor)
    canvas = np.full((tops[-1] + height * factor, lefts[-1] + width * factor, 3), 255, np.uint8)
    for row, top in enumerate(tops):
        for column, left in enumerate(lefts):
            canvas[top : top + height * factor, left : left + width * factor] = tiles[row, column]
    return canvas


def _check_images(images: np.ndarray) -> None:
    """Raises InputError for what is no grid of images [R, S, H, W, C]."""
    if np.ndim(images) != 5:
        fix = either("end --out with .npz", "use their arrays")
        raise InputError(
            f"{either('--out', 'figure')}: examples of shape {list(np.shape(images)[2:])} are not images; {fix}"
        )


def enlargement(height: int, width: int, tile: int = TILE) -> int:
    """Returns the whole factor by which images are enlarged, 1 or more."""
    return max(1, round(tile / max(height, width)))


def offsets(count: int, size: int, group: int = 1) -> list[int]:
    """Returns where each of `count` tiles starts, in pixels."""
    extra = 4 * GAP if group > 1 else 0
    return [i * (size + GAP) + (i // group) * extra for i in range(count)]


def grid(
    images: np.ndarray,
    *,
    title: str = "",
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    group: int = 1,
    xlabel: str = "",
    ylabel: str = "",
    count: int | None = None,
) -> Figure:
    """Returns a labeled grid of images [R, S, H, W, C] in [0, 1]; every image pixel is a whole number of pixels.

    Of more rows than one picture holds the first are drawn, which the title and a note say.

    Args:
      images: rows of images.
      title: of the figure, broken into lines where it is long.
      rows: a label for each row, or none.
      columns: a label for each column, or none.
      group: as for `mosaic`.
      xlabel: what the columns are.
      ylabel: what the rows are.
      count: how many examples the rows hold, where the last one is filled up; None where rows are counted.

    Returns:
      a matplotlib figure, not yet written.
    """
    _check_images(images)
    images, title = _drawn(images, title, group, count)
    picture = mosaic(images, group=group)
    if part := channels_shown(images.shape[-1]):
        title = f"{title} ({part})" if title else part
    height, width = picture.shape[:2]
    left = 12 + int(_LETTER * max(map(len, rows), default=0)) + (22 if ylabel else 0)
    bottom = 12 + (_LINE if columns else 0) + (_LINE + 4 if xlabel else 0)
    wide = max(width, 240)
    lines = textwrap.wrap(title, max(20, int(wide / (_LETTER * 1.12))))
    top = 12 + int(_LINE * 1.2) * len(lines)
    total = (left + wide + 12, top + height + bottom)
    figure = Figure((total[0] / DPI, total[1] / DPI), dpi=DPI, facecolor=_PAPER)
    box = (left / total[0], bottom / total[1], width / total[0], height / total[1])
    axes = figure.add_axes(box)
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    size = enlargement(*images.shape[2:4])
    tops, lefts = offsets(len(images), images.shape[2] * size, group), offsets(images.shape[1], images.shape[3] * size)
    rows = rows[: len(tops)]
    axes.set_yticks([t + images.shape[2] * size / 2 for t in tops[: len(rows)]], rows, fontsize=8, color=_INK)
    axes.set_xticks([x + images.shape[3] * size / 2 for x in lefts[: len(columns)]], columns, fontsize=8, color=_INK)
    axes.tick_params(length=0, pad=4)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel(xlabel, fontsize=8, color=_INK)
    axes.set_ylabel(ylabel, fontsize=8, color=_INK)
    if lines:
        figure.text(left / total[0], 1 - 8 / total[1], "\n".join(lines), va="top", fontsize=9, color=_INK)
    return figure


def _drawn(images: np.ndarray, title: str, group: int, count: int | None) -> tuple[np.ndarray, str]:
    """Returns the rows of images that one picture holds, and the title, which says where these are not all."""
    row = images.shape[2] * enlargement(*images.shape[2:4]) + GAP
    most = max(LEAST_ROWS, MOST_HEIGHT // row) // group * group
    if len(images) <= most:
        return images, title
    if count is None:
        words = bound_words(most // group, len(images) // group, "rows")
    else:
        words = bound_words(most // group * images.shape[1], count, "examples")
    return images[:most], f"{title} ({words})"


def bound_words(drawn: int, count: int, what: str) -> str:
    """Returns "the first 256 of 300 examples" for a title, and says so in a note with how to have all."""
    words = f"the first {drawn:,} of {count:,} {what}"
    note(f"note: the picture shows {words}; {either('end --out with .npz', 'use the arrays')} for all")
    return words


def pairs(images: np.ndarray, made: np.ndarray, *, title: str = "", columns: int = 8) -> Figure:
    """Returns rows of originals [N, H, W, C], each with the row of what was made of them below.

    Args:
      images: originals [N, H, W, C] in [0, 1].
      made: their reconstructions [N, H, W, C] in [0, 1].
      title: of the figure.
      columns: pairs side by side.

    Returns:
      a matplotlib figure, not yet written.
    """
    halves = fold(np.asarray(images), columns), fold(np.asarray(made), columns)
    rows = np.stack(halves, 1).reshape(-1, *halves[0].shape[1:])
    return grid(rows, title=title, rows=["original", "reconstruction"] * len(halves[0]), group=2, count=len(images))


def save(figure: Figure, path: Path, dpi: int | None = None) -> Path:
    """Writes a figure as its suffix says (.png, .pdf, .svg), whole or not at all, and returns its path.

    Args:
      figure: to write.
      path: of the file.
      dpi: dots per inch, of the images in a .pdf or .svg too; None for those of the figure.
    """
    kind = path.suffix.lower().removeprefix(".")
    # A date in the file would make two files of one figure differ.
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
    with replacing(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=dpi or "figure", metadata=undated)
    return path


def fold(images: np.ndarray, columns: int) -> np.ndarray:
    """Returns images [N, H, W, C] as rows [R, columns, H, W, C]; what is missing in the last row is white."""
    count = len(images)
    columns = min(columns, count)
    missing = -count % columns
    blank = np.ones((missing, *images.shape[1:]), np.float32)
    return np.concatenate([images, blank]).reshape(-1, columns, *images.shape[1:])
