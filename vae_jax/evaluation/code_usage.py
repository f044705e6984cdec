"""How much of its codebooks a model uses over a whole split: counts of indices, merged over batches of any size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vae_jax.metrics.estimate import Estimate
from vae_jax.spaces import Codes, Latents


class CodeCounts:
    """Counts of the indices of each codebook, by its name.

    A level [..., L] of a model has L codebooks; where there is one in all, its name is "". Only codes that occur are
    held, so that a codebook may have 2^31 entries.
    """

    def __init__(self, latents: Latents) -> None:
        self._levels = [(_name(path), space) for path, space in jax.tree_util.tree_leaves_with_path(latents)]
        self._held: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._size: dict[str, int] = {}

    def add(self, indices: Mapping[str, np.ndarray]) -> None:
        """Counts the indices of a batch.

        Args:
          indices: name of a level -> int [B, *shape].
        """
        for level, space in self._levels:
            if not isinstance(space, Codes):
                continue
            rows = np.asarray(indices[level]).reshape(-1, space.shape[-1])
            for i, column in enumerate(rows.T):
                parts = [level] if level else []
                name = "/".join(parts + ([str(i)] if space.shape[-1] > 1 else []))
                self._size[name] = space.limits[i]
                codes, counts = np.unique(column, return_counts=True)
                if name in self._held:
                    codes, counts = _merged(self._held[name], (codes, counts))
                self._held[name] = codes, counts

    def used(self) -> dict[str, int]:
        """Returns how many entries of each codebook occur."""
        return {name: len(codes) for name, (codes, _) in self._held.items()}

    def metrics(self, n: int) -> dict[str, Estimate]:
        """Returns `usage` and `perplexity` of each codebook, over n examples."""
        found = {}
        for name, (_, counts) in self._held.items():
            share = counts / counts.sum()
            end = f"/{name}" if name else ""
            found[f"usage{end}"] = Estimate(len(counts) / self._size[name], None, n)
            found[f"perplexity{end}"] = Estimate(float(np.exp(-np.sum(share * np.log(share)))), None, n)
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
