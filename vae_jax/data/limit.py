"""A part of a split, for `data.limit` and limited evaluations: the first examples, or some of every class."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.data.source import Arrays, Batch, Records, Source
from vae_jax.errors import InputError, option

_BLOCKS, _BLOCK = 32, 64  # blocks of neighbors, and rows of each, whose labels say whether a split is sorted
_FEWEST = 63  # pairs of neighbors for a rate: half of the expected one is then four standard deviations away
_ORDERED: "weakref.WeakKeyDictionary[Source, bool]" = weakref.WeakKeyDictionary()
# Runs made under this protocol were trained on the first examples, and must continue with the same ones.
_KEEPS_FIRST = "random-tenth"


@dataclass(frozen=True)
class Rows:
    """Some of the records of a split; picklable."""

    records: Records
    chosen: np.ndarray

    def __len__(self) -> int:
        return len(self.chosen)

    def rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        return self.records.rows(self.chosen[index])


def rows(source: Source, limit: int) -> np.ndarray:
    """Returns the rows int32 [N], ascending, that stand for the split: min(limit, size) of them, all for limit 0.

    These are the first rows, unless examples of one class follow each other (class folders, sorted arrays): there the
    first rows would be of one class, and evenly spread rows are taken.
    """
    size = source.size
    if not limit or limit >= size:
        return np.arange(size, dtype=np.int32)
    if in_class_order(source):
        return _spread(size, limit)
    return np.arange(limit, dtype=np.int32)


def mixed(source: Source, limit: int) -> np.ndarray:
    """Returns the rows of `rows` in an order of which every beginning stands for the split as well.

    That is ascending order, unless the split is in the order of classes. For pictures, which show the first few.
    """
    found = rows(source, limit)
    return found[mixing(source, len(found))]


def mixing(source: Source, size: int) -> np.ndarray:
    """Returns the order int [size] that `mixed` gives rows: ascending, unless the split is in the order of classes."""
    return np.random.Generator(np.random.Philox(key=1)).permutation(size) if in_class_order(source) else np.arange(size)


def _spread(size: int, limit: int) -> np.ndarray:
    """Returns one row int32 of each of `limit` equal parts, at a place in it that is drawn once and for all.

    Without the draw the stride could fall in step with a grid of factors, and take one value of a factor alone.
    """
    place = np.random.Generator(np.random.Philox(key=0)).random(limit)
    edges = np.arange(limit + 1, dtype=np.int64) * size // limit
    return (edges[:-1] + place * np.diff(edges)).astype(np.int32)


def in_class_order(source: Source) -> bool:
    """Says whether examples of one class tend to follow each other, as in folders and sorted arrays.

    In a shuffled split neighbors differ with probability 1 - sum p_k^2, where p_k are the shares of the classes. Where
    they differ less than half as often, the split is sorted, or made of sorted parts.
    """
    if source.info.name == "image_folder":  # in name order; flat folders often have the class in the name
        return True
    if not source.info.num_classes or source.size < 3:
        return False
    if source not in _ORDERED:
        _ORDERED[source] = _ordered(source)
    return _ORDERED[source]


def _ordered(source: Source) -> bool:
    probes = _probes(source.size)
    label = source.arrays["label"][probes] if "label" in source.arrays else source.records.rows(probes).get("label")
    if label is None:
        return False
    differ, adjacent = np.diff(np.asarray(label)) != 0, np.diff(probes) == 1
    counts = np.unique(np.asarray(label), return_counts=True)[1]
    if 1 < len(counts) < len(label) and differ.sum() == len(counts) - 1:  # each class in one piece
        return True
    if adjacent.sum() < _FEWEST:  # too few for a rate: chance would decide
        return False
    shuffled = 1.0 - np.square(counts / len(label)).sum()
    return bool(differ[adjacent].mean() < shuffled / 2)


def _probes(size: int) -> np.ndarray:
    """Returns the rows int64, ascending, that are looked at: all of a small split, else blocks spread over it."""
    if size <= _BLOCKS * _BLOCK:
        return np.arange(size)
    starts = np.linspace(0, size - _BLOCK, _BLOCKS).astype(np.int64)
    return (starts[:, None] + np.arange(_BLOCK)).ravel()


def text(source: Source, limit: int) -> str:
    """Returns words for a limited part: which examples `rows` takes."""
    if not limit or limit >= source.size:
        return "all"
    return "evenly spread, as the split is in the order of classes" if in_class_order(source) else "the first"


def limited(source: Source, limit: int | None) -> Source:
    """Returns the source with only `limit` examples of the training split; other splits keep all.

    Raises:
      InputError: the training split has fewer.
    """
    if limit is None:
        return source
    training = source.info.sizes["train"]
    if limit > training:
        raise InputError(
            f"data.limit: {limit} is more than the {training} training examples of {source.info.name!r}; "
            f"use {option('data.limit', training)} or less"
        )
    # The other splits are in the same order, so that all of them can say which examples trained.
    spread = source.info.protocol != _KEEPS_FIRST and limit < training and in_class_order(source)
    which = f"{limit:,}, evenly spread as it is in the order of classes" if spread else f"the first {limit:,}"
    protocol_text = f"{source.info.protocol_text}; of the training split only {which}"
    sizes = {**source.info.sizes, "train": limit}
    info = replace(source.info, sizes=sizes, protocol_text=protocol_text, unlimited=training)
    if source.split != "train":
        return replace(source, info=info)
    chosen = rows(source, limit) if spread else np.arange(limit, dtype=np.int32)
    arrays = {name: value[chosen] if spread else value[:limit] for name, value in source.arrays.items()}
    fetch = _fetch(source, chosen) if spread else source.fetch
    part = replace(source, info=info, size=limit, arrays=arrays, records=Rows(source.records, chosen), fetch=fetch)
    return replace(part, paths=tuple(source.paths[i] for i in chosen)) if source.paths else part


def _fetch(source: Source, chosen: np.ndarray) -> Callable[[Arrays, jax.Array], Batch]:
    if source.arrays or source.pipeline == "grain":
        return source.fetch  # the arrays are cut already; what is on disk is read through its records

    def fetch(arrays: Arrays, index: jax.Array) -> Batch:
        return source.fetch(arrays, jnp.asarray(chosen)[index]) | {"index": jnp.asarray(index, jnp.int32)}

    return fetch
