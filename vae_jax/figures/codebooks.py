"""The codebooks of a model: how its codes are used, what each of them draws, and where in an image they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure

from vae_jax.evaluation.code_usage import Book, Used
from vae_jax.evaluation.codebooks import COLUMNS, MOST_BOOKS, Constant, ranks
from vae_jax.figures.curves import COLORS
from vae_jax.figures.grid import enlargement, fold, grid, pixels

_GOLDEN = (
    0.6180339887498949  # turns of the color circle from one rank to the next: no two of the first dozens are alike
)
_UNSEEN = (0.6, 0.6, 0.6)
_FRAME = 4  # pixels of color around a decoded code
_BELOW = 0.8  # of the logarithmic axis from the bar of dead codes of one codebook to that of the next
_LEGEND = 12  # codebooks in a legend


def usage_chart(found: Mapping[str, Used], n: int, *, title: str = "", examples: str = "images") -> Figure:
    """Returns the share of each code over a split, the most used first, on a logarithmic axis.

    A dashed line is the share of each code if all were used alike; codes that do not occur are a bar at the bottom.

    Args:
      found: what occurs of each codebook, by its name.
      n: examples whose codes were counted.
      title: of the figure; usage, or the number of examples, is added.
      examples: what they are called.

    Returns:
      a matplotlib figure, not yet written.
    """
    entries = min(len(found), _LEGEND) + 3
    figure = Figure((7.5, 4.0 + 0.1 * entries), dpi=100, layout="constrained")
    axes = figure.subplots()
    # The least share that is drawn; below it a bar for the dead codes of each codebook.
    floor = min(min(float(used.share[-1]), 1 / used.size) for used in found.values()) / 2
    for number, (name, used) in enumerate(found.items()):
        color, uses = COLORS[number % len(COLORS)], len(used.codes)
        label = f"{name}: {words(used)}" if name else "share of each code"
        axes.stairs(used.share, np.arange(uses + 1) + 0.5, baseline=None, color=color, lw=1.6, label=label)
        axes.axhline(1 / used.size, color=color, lw=1, ls="--", alpha=0.7)
        if uses < used.size:
            axes.hlines(floor * _BELOW**number, uses + 0.5, used.size + 0.5, color=color, lw=4, alpha=0.6)
    largest, most = max(used.size for used in found.values()), max(len(used.codes) for used in found.values())
    axes.set_yscale("log")
    axes.set_ylim(floor * _BELOW ** len(found), 2 * max(float(used.share[0]) for used in found.values()))
    if largest > 50 * most:
        # On a linear axis what is used of a huge codebook would be one line at its left end.
        axes.set_xscale("log")
    axes.set_xlim(0.5, largest + 0.5)
    axes.set_xlabel("code, the most used first", fontsize=9)
    axes.set_ylabel("share of all codes", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    axes.grid(alpha=0.25, lw=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _legend(figure, axes, found)
    # Of several codebooks the legend has the numbers of each.
    numbers = "".join(f"{words(used)}; " for used in found.values()) if len(found) == 1 else ""
    figure.suptitle(f"{title}{numbers}codes of {n:,} {examples}", fontsize=10, wrap=True)
    return figure


def words(used: Used) -> str:
    """Returns usage and perplexity of a codebook."""
    return (
        f"usage {100 * used.usage:.3g}% ({len(used.codes):,} of {used.size:,} codes), perplexity {used.perplexity:,.1f}"
    )


def _legend(figure: Figure, axes: Axes, found: Mapping[str, Used]) -> None:
    """Names the lines below the axes: codebooks, the uniform line and dead codes."""
    handles, labels = axes.get_legend_handles_labels()
    handles, labels = handles[:_LEGEND], labels[:_LEGEND]
    if len(found) > _LEGEND:
        handles, labels = [*handles, axes.plot([], [], lw=0)[0]], [*labels, f"and {len(found) - _LEGEND} more"]
    handles.append(axes.plot([], [], color="#555555", lw=1, ls="--")[0])
    labels.append("if all were used alike")
    if any(len(used.codes) < used.size for used in found.values()):
        handles.append(axes.plot([], [], color="#555555", lw=4, alpha=0.6)[0])
        labels.append("codes that do not occur")
    columns = 3 if len(found) == 1 else 2
    figure.legend(handles, labels, fontsize=8, frameon=False, loc="outside lower center", ncols=columns)


class Rows(NamedTuple):
    """Rows of a grid of pictures.

    Attributes:
      images: float [R, S, Y, X, 3] in [0, 1], enlarged.
      labels: of the rows.
    """

    images: np.ndarray
    labels: list[str]


def constant_rows(found: Sequence[Constant]) -> Rows:
    """Returns what codes alone are decoded to, in the order of use, framed in their colors in `index_rows`."""
    rows, labels = [], []
    for one in found:
        tiles = _framed(_tiles(one.images), rank_colors(np.arange(len(one.images))))
        missing = np.ones((-len(tiles) % COLUMNS, *tiles.shape[1:]), np.float32)
        rows.append(fold(np.concatenate([tiles, missing]), COLUMNS))
        name = f"{one.book.name} " if one.book.name else ""
        for first in range(0, len(tiles), COLUMNS):
            last = min(first + COLUMNS, len(tiles))
            labels.append(f"{name}{first + 1}-{last}: {one.used.share[first:last].sum():.1%}")
    return Rows(np.concatenate(rows), labels)


def constant_grid(found: Sequence[Constant], *, title: str = "", books: int = 0) -> Figure:
    """Returns the figure of `constant_rows`.

    Args:
      found: as `codebooks.constant` returns it.
      title: of the figure.
      books: codebooks of the model; where these are more than `found`, the title says so.

    Returns:
      a matplotlib figure, not yet written.
    """
    images, labels = constant_rows(found)
    others = "; other codebooks at their most used code" if len(found) > 1 else ""
    words = f"{title}each code alone, in all places{others}{_first(len(found), books)}"
    return grid(images, title=words, rows=labels, ylabel="codes by use, their share")


def index_rows(images: np.ndarray, made: np.ndarray, vectors: np.ndarray, found: Sequence[tuple[Book, Used]]) -> Rows:
    """Returns images, their reconstructions, and below them their grids of indices: one color for each code.

    Args:
      images: [N, H, W, C] in [0, 1].
      made: their reconstructions.
      vectors: their latents as vectors [N, n].
      found: the codebooks whose indices are a grid [h, w], with what of each occurs; of many the first 8 are drawn.

    Returns:
      rows of one image or grid for each example.
    """
    rows, labels = [_tiles(images), _tiles(made)], ["original", "reconstruction"]
    height, width = rows[0].shape[1:3]
    for book, used in found[:MOST_BOOKS]:
        index = book.of(vectors)
        (h, w), colors = index.shape[1:], rank_colors(ranks(used, index))
        # Each pixel of the tile takes the place that it lies in; sides need not divide.
        rows.append(colors[:, np.arange(height) * h // height][:, :, np.arange(width) * w // width])
        labels.append(f"{book.name or 'codes'} {h}x{w}")
    return Rows(np.stack(rows), labels)


def index_grid(
    images: np.ndarray, made: np.ndarray, vectors: np.ndarray, found: Sequence[tuple[Book, Used]], *, title: str = ""
) -> Figure:
    """Returns the figure of `index_rows`.

    Args:
      images: [N, H, W, C] in [0, 1].
      made: their reconstructions.
      vectors: their latents as vectors [N, n].
      found: as for `index_rows`.
      title: of the figure.

    Returns:
      a matplotlib figure, not yet written.
    """
    drawn = index_rows(images, made, vectors, found)
    return grid(
        drawn.images,
        title=f"{title}codes of images, one color per code{_first(MOST_BOOKS, len(found))}",
        rows=drawn.labels,
    )


def _first(shown: int, books: int) -> str:
    """Returns what a title adds where not all codebooks are drawn."""
    return f", the first {shown} of {books} codebooks" if books > shown else ""


def rank_colors(rank: np.ndarray) -> np.ndarray:
    """Returns colors float [..., 3] of codes by their rank in the order of use; gray for -1, a code without one."""
    rank = np.asarray(rank)
    # Hues far apart, and a step darker or paler after each round of the circle's dozen that the eye tells apart.
    step = rank // 12 % 3
    saturation, value = np.choose(step, (0.75, 0.95, 0.45)), np.choose(step, (0.95, 0.6, 0.8))
    colors = hsv_to_rgb(np.stack([rank * _GOLDEN % 1.0, saturation, value], -1))
    return np.where(rank[..., None] < 0, _UNSEEN, colors)


def _tiles(images: np.ndarray) -> np.ndarray:
    """Returns images in color [N, Y, X, 3], enlarged as a grid would."""
    images = pixels(images) / 255.0
    factor = enlargement(*images.shape[1:3])
    return images.repeat(factor, 1).repeat(factor, 2).astype(np.float32)


def _framed(tiles: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Returns tiles [N, Y, X, 3] with a frame of color [N, 3] around each."""
    n, height, width, _ = tiles.shape
    framed = np.broadcast_to(colors[:, None, None], (n, height + 2 * _FRAME, width + 2 * _FRAME, 3)).astype(np.float32)
    framed[:, _FRAME:-_FRAME, _FRAME:-_FRAME] = tiles
    return framed
