"""How much of its codebooks a model uses over a whole split: counts of indices, merged over batches of any size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from vae_jax.metrics.estimate import Estimate
from vae_jax.spaces import Codes, Latents


class Book(NamedTuple):
    """One codebook, and where its indices are in the latents.

    Attributes:
      name: "" where it is the only one.
      level: name of its level, as of `by_level`.
      size: number of its entries K.
      start: where the level begins in the vector of all levels.
      places: where its indices are in the vector of the level, int [*grid]: (h, w) for a grid of codes.
    """

    name: str
    level: str
    size: int
    start: int
    places: np.ndarray

    def of(self, vectors: np.ndarray) -> np.ndarray:
        """Returns its indices [N, *grid] in vectors of all levels [N, n]."""
        return vectors[:, self.start + self.places]


class Used(NamedTuple):
    """The entries of one codebook that occur.

    Attributes:
      size: number of all its entries K.
      codes: those that occur, the most frequent first, int [U].
      counts: how often each of them does, int [U].
    """

    size: int
    codes: np.ndarray
    counts: np.ndarray

    @property
    def share(self) -> np.ndarray:
        """Their shares in all indices, float64 [U], in the same order."""
        return self.counts / self.counts.sum()

    @property
    def usage(self) -> float:
        """Share of the entries that occur."""
        return len(self.codes) / self.size

    @property
    def perplexity(self) -> float:
        """Exp of the entropy of the shares."""
        return float(np.exp(-np.sum(self.share * np.log(self.share))))


def books(latents: Latents) -> list[Book]:
    """Returns the codebooks of all levels, in their order; none of latents that are not indices."""
    found, start = [], 0
    for path, space in jax.tree_util.tree_leaves_with_path(latents):
        if isinstance(space, Codes):
            level, count = _name(path), max(len(space.sizes), 1)
            # Of several codebooks the last axis has one index each; a single one has the whole grid.
            grid = space.shape[:-1] if space.sizes else space.shape
            # The number of the codebook that each index of the level is of, [size].
            book = np.asarray(space.places())
            for i in range(count):
                name = "/".join(([level] if level else []) + ([str(i)] if count > 1 else []))
                places = np.flatnonzero(book == i).reshape(grid)
                found.append(Book(name, level, space.limits[places.flat[0]], start, places))
        start += space.size
    return found


class CodeCounts:
    """Counts of the indices of each codebook, by its name.

    Only codes that occur are held, so that a codebook may have 2^31 entries.
    """

    def __init__(self, latents: Latents) -> None:
        self._books = books(latents)
        self._held: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def add(self, indices: Mapping[str, np.ndarray]) -> None:
        """Counts the indices of a batch.

        Args:
          indices: name of a level -> int [B, *shape].
        """
        for book in self._books:
            level = np.asarray(indices[book.level])
            # [B, places of this codebook]; only what occurs is counted.
            codes, counts = np.unique(level.reshape(len(level), -1)[:, book.places.ravel()], return_counts=True)
            if book.name in self._held:
                codes, counts = _merged(self._held[book.name], (codes, counts))
            self._held[book.name] = codes, counts

    def used(self) -> dict[str, Used]:
        """Returns the entries of each codebook that occur, by its name."""
        found = {}
        for book in self._books:
            if book.name in self._held:
                codes, counts = self._held[book.name]
                # Codes that are as frequent stay in the order of their numbers.
                order = np.argsort(-counts, kind="stable")
                found[book.name] = Used(book.size, codes[order], counts[order])
        return found

    def metrics(self, n: int) -> dict[str, Estimate]:
        """Returns `usage` and `perplexity` of each codebook, over n examples."""
        found = {}
        for name, used in self.used().items():
            end = f"/{name}" if name else ""
            found[f"usage{end}"] = Estimate(used.usage, None, n)
            found[f"perplexity{end}"] = Estimate(used.perplexity, None, n)
        return found


def by_level(z: Any) -> dict[str, Any]:
    """Returns the leaves of latents by the name of their level; that of a model of one level is ""."""
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(z)}


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _merged(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the (codes, counts) of two batches together."""
    codes, place = np.unique(np.concatenate([a[0], b[0]]), return_inverse=True)
    return codes, np.bincount(place, weights=np.concatenate([a[1], b[1]])).astype(np.int64)
