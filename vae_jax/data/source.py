"""What a loaded split is: facts, arrays, and a pure function that fetches a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.errors import InputError, choice
from vae_jax.files.columns import Column
from vae_jax.spec import Units

Arrays = Mapping[str, Any]
Batch = dict[str, Any]
DEVICE_BYTES = 1 << 30  # `pipeline="auto"` keeps a split on the device up to this size

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Info:
    """Facts about a data set under one protocol; everything here is JSON.

    Attributes:
      name: registry name.
      shape: of one example: (H, W, C) of an image.
      sizes: examples in each split that the protocol has, after `limit`.
      protocol: the protocol's name.
      protocol_text: one sentence that says what the splits are.
      num_classes: number of labels, None without labels.
      label_names: one name a label, or ().
      factor_names: names of the generative factors, or ().
      factor_sizes: number of values of each factor, or ().
      cond_size: length of each example's condition vector, 0 without any.
      values: "grey" (uint8, v / 255), "binary" (uint8, only 0 and 255), "float" (float32 in [0, 1]) or "count" (0, 1,
        2, ...).
      where: where the data came from.
      checksums: SHA-256 by file name, of the uncompressed bytes.
      notes: what the user should know about how the data were read; training prints them.
      unlimited: training examples that the protocol has, before `limit`; None where no limit was set.
      kind: of the data, as `spec.ArraySpec` has it.
      mask: whether examples come with a `mask`, True where they are observed.
      unlabeled: whether the label of some examples, in any split, is -1: not known.
      units: what the numbers were in the user's file, where they were mapped.
      columns: of a table, by which `x` is encoded; () of other data.
    """

    name: str
    shape: tuple[int, ...]
    sizes: Mapping[str, int]
    protocol: str
    protocol_text: str
    num_classes: int | None = None
    label_names: tuple[str, ...] = ()
    factor_names: tuple[str, ...] = ()
    factor_sizes: tuple[int, ...] = ()
    cond_size: int = 0
    values: Literal["grey", "binary", "float", "count"] = "grey"
    where: str = "embedded"
    checksums: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unlimited: int | None = None
    kind: Literal["image", "vector", "sequence", "tokens"] = "image"
    mask: bool = False
    unlabeled: bool = False
    units: Units | None = None
    columns: tuple[Column, ...] = ()


class Records(Protocol):
    """Random access on the host: what grain reads. It must be picklable for reader processes."""

    def __len__(self) -> int: ...

    def rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the examples `index` int [B], stacked: `image` [B, H, W, C] (stored pixels) or `x`, `label`?, ..."""
        ...


@dataclass(frozen=True, eq=False)
class Source:
    """One split of a data set.

    Attributes:
      info: facts about the data set.
      split: "train", "validation" or "test".
      size: number of examples in this split.
      arrays: host arrays, `image` uint8 (or float32) [N, H, W, C] or, of other kinds, `x` [N, *shape]; `label` int32
        [N], `factors` int32 [N, F], `cond` float32 [N, F]; `mask` bool [N, *shape] of data with missing values; {}
        where examples are computed or stay on disk. Put them on the device once and pass them to `fetch`.
      fetch: `(arrays, index int32 [B]) -> {"image" or "x": [B, *shape], "index": [B], "label"?: [B], ...}`, pure, so
        that it runs inside the scanned train step. Raises for a split that is not in memory.
      records: the same examples by random access on the host.
      pipeline: "device" or "grain", resolved from the config.
      labeled: rows int32 [M] of the labeled examples of a training split (`data.labels`, or those whose label is not
        -1); None: all labels are known.
      draws: order in which a training split is drawn (`balance.Draws`); None: every example once an epoch.
      weights: of the training loss, by class (`data.class_weights`); None weighs all alike.
      division: how examples that came without splits were divided (`split.Division`); None of all other data.
      paths: the file of each example, N of them; () where examples have no files of their own.
    """

    info: Info
    split: str
    size: int
    arrays: Arrays
    fetch: Callable[[Arrays, jax.Array], Batch]
    records: Records
    pipeline: Literal["device", "grain"] = "device"
    labeled: np.ndarray | None = None
    division: Any = None
    draws: Any = None
    weights: tuple[float, ...] | None = None
    paths: tuple[Path, ...] = ()

    @property
    def epoch(self) -> int:
        """Examples that training visits in one epoch."""
        return self.size if self.draws is None else self.draws.size


def main(arrays: Mapping[str, Any]) -> str:
    """Returns the name of the data themselves among the entries of examples: `image` for stored pixels, else `x`."""
    return "image" if "image" in arrays else "x"


def take(arrays: Arrays, index: jax.Array) -> Batch:
    """Returns the rows `index` int32 [B] of every array; `index` must be in range."""
    index = jnp.asarray(index, jnp.int32)
    rows = {name: jnp.asarray(value).at[index].get(mode="promise_in_bounds") for name, value in arrays.items()}
    return rows | {"index": index}


def pair(batch: Batch, labeled: Arrays) -> Batch:
    """Returns a training batch without its labels, which are not known, and with a labeled example beside each."""
    return without_label(batch) | {f"paired_{name}": labeled[name] for name in (main(labeled), "label", "index")}


def without_label(batch: Batch) -> Batch:
    """Returns a batch without its labels, which are not known."""
    return {name: value for name, value in batch.items() if name != "label"}


def not_in_memory(arrays: Arrays, index: jax.Array) -> Batch:
    """Stands for `fetch` where the split is read from disk: use `GrainStream` or `eval_batches`."""
    raise TypeError("this split is not in memory (pipeline 'grain'): iterate GrainStream or eval_batches")


@dataclass(frozen=True, eq=False)
class ArrayRecords:
    """`Records` over arrays in host memory."""

    arrays: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.arrays[main(self.arrays)])

    def rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        return {name: value[index] for name, value in self.arrays.items()}


def from_arrays(info: Info, split: str, arrays: Mapping[str, np.ndarray], pipeline: str = "auto") -> Source:
    """Returns a `Source` over host arrays; `pipeline` "auto" picks the device up to `DEVICE_BYTES`.

    Args:
      info: facts about the data.
      split: "train", "validation" or "test".
      arrays: by name, [N, ...] each. `x` of integers becomes float32, as models take it; tokens stay integers.
      pipeline: "device" (whole split on the device), "grain" (read by the host) or "auto".

    Returns:
      a source whose `pipeline` is the one chosen.
    """
    if "x" in arrays and info.kind != "tokens" and arrays["x"].dtype.kind in "iub":
        arrays = {**arrays, "x": arrays["x"].astype(np.float32)}
    stored = arrays[main(arrays)]
    size, on_device = len(stored), pipeline == "device" or (pipeline == "auto" and stored.nbytes <= DEVICE_BYTES)
    records = ArrayRecords(arrays)
    if on_device:
        return Source(info, split, size, arrays, take, records, "device")
    return Source(info, split, size, {}, not_in_memory, records, "grain")


def no_validation(name: str, protocol: str, having: Sequence[str]) -> InputError:
    """Returns the error for a validation split that the protocol does not have."""
    fix = f"use {choice('data.protocol', having)}" if having else "use the test split"
    return InputError(f"data.protocol: {name!r} has no validation split under protocol {protocol!r}; {fix}")
