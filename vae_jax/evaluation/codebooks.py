"""What the codebooks of a model hold: how often each code occurs over a split, and what each alone is decoded to."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from vae_jax import spaces
from vae_jax.evaluation.code_usage import Book, CodeCounts, Used, books, by_level
from vae_jax.evaluation.codes import Codes, decode_all
from vae_jax.model import Model
from vae_jax.spaces import Latents
from vae_jax.train.state import TrainState

COLUMNS = 8  # of a grid of decoded codes
MOST_BOOKS = 8  # codebooks that a grid shows
MOST_IMAGES = 64  # of all of them together
VALUES = 4_000_000  # of these images together: of large images there are fewer, but one row at least


class Counted(NamedTuple):
    """The codes of a split.

    Attributes:
      books: the codebooks of all levels.
      used: what of each occurs, in the same order.
      n: examples counted.
      middle: the vector [n] of the most used code of each codebook, and of the mean of latents that are numbers.
      cond: features of one example [1, F], of a conditional model.
    """

    books: list[Book]
    used: list[Used]
    n: int
    middle: np.ndarray
    cond: np.ndarray | None

    @property
    def pairs(self) -> list[tuple[Book, Used]]:
        """Each codebook with what of it occurs."""
        return list(zip(self.books, self.used, strict=True))


class Constant(NamedTuple):
    """What the most used codes of one codebook are decoded to, each alone in its whole grid.

    Attributes:
      book: the codebook.
      used: what of it occurs.
      images: float32 [U, *x.shape], in the order of `used.codes`.
    """

    book: Book
    used: Used
    images: np.ndarray


def planes(counted: Counted) -> list[tuple[Book, Used]]:
    """Returns the codebooks whose indices are a grid [h, w]; codes of others have no place in an image."""
    return [pair for pair in counted.pairs if pair[0].places.ndim == 2]


def count(model: Model, encoded: Iterable[Codes]) -> Counted:
    """Counts the codes of a split; nothing is kept of a part of it but the counts.

    Args:
      model: a model whose latents hold indices.
      encoded: what `encode_all` returns of one or more parts of the split.

    Returns:
      the codebooks of all levels with what occurs of them.
    """
    latents = model.about.latents
    counts, n, total, cond = CodeCounts(latents), 0, np.zeros(spaces.size(latents)), None
    for codes in encoded:
        counts.add(by_level(spaces.shaped(latents, codes.mean)))
        n, total = n + len(codes.mean), total + codes.mean.sum(0, dtype=np.float64)
        cond = None if codes.cond is None else codes.cond[:1]
    # The codebooks in the order of the levels, coarse to fine where the model has them so.
    used = counts.used()
    found = books(latents)
    # A mean of indices means nothing; only latents of other levels, which are numbers, keep theirs.
    middle = total / n
    for book in found:
        middle[book.start + book.places] = used[book.name].codes[0]
    return Counted(found, [used[book.name] for book in found], n, middle.astype(_dtype(latents)), cond)


def constant(model: Model, state: TrainState, counted: Counted) -> list[Constant]:
    """Decodes codes alone: each in all places of its grid, with the most used code in the grids of other codebooks.

    Only what one grid shows is decoded: the most used codes of the first codebooks, in whole rows where there is room
    for more than one.

    Args:
      model: as for `count`.
      state: that it was encoded with.
      counted: what occurs.

    Returns:
      what is decoded, a codebook at a time; of many the first `MOST_BOOKS`.
    """
    # All the images are held at once: their number is bounded, and so is their size.
    room = max(COLUMNS, min(MOST_IMAGES, VALUES // math.prod(model.about.spec.x.shape)))
    most = room // min(len(counted.books), MOST_BOOKS)
    if most > COLUMNS:
        most -= most % COLUMNS
    found = []
    for book, used in counted.pairs[:MOST_BOOKS]:
        # What is drawn is chosen by use, so that it is the same in any order of the batches.
        shown = Used(used.size, used.codes[:most], used.counts[:most])
        # [U, n]: this codebook's places hold code u in row u, all others the same in every row.
        z = np.tile(counted.middle, (len(shown.codes), 1))
        z[:, (book.start + book.places).ravel()] = shown.codes[:, None]
        found.append(Constant(book, used, decode_all(model, state, z, cond=counted.cond)))
    return found


def ranks(used: Used, indices: np.ndarray) -> np.ndarray:
    """Returns the place of each index in the order of use, 0 for the most used code; -1 for one that does not occur."""
    order = np.argsort(used.codes)
    # Where each index is among the sorted codes, or would be.
    at = np.searchsorted(used.codes, indices, sorter=order).clip(max=len(order) - 1)
    return np.where(used.codes[order[at]] == indices, order[at], -1)


def _dtype(latents: Latents) -> type:
    """Returns the type of vectors of these latents: whole numbers where all are indices."""
    return np.int32 if all(isinstance(space, spaces.Codes) for space in spaces.leaves(latents)) else np.float32
