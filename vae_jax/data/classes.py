"""Class numbers of a source, matched by name with those that a run was trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.data import unlabeled
from vae_jax.data.layout import some
from vae_jax.data.source import Arrays, Batch, Records, Source
from vae_jax.errors import InputError


@dataclass(frozen=True)
class _Renumbered:
    """Records with other class numbers; picklable."""

    records: Records
    number: np.ndarray

    def __len__(self) -> int:
        return len(self.records)

    def rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        rows = self.records.rows(index)
        return rows | {"label": unlabeled.renumbered(self.number, rows["label"])}


def match(source: Source, names: tuple[str, ...], where: str) -> Source:
    """Returns the source with the class numbers of `names`.

    Folders number their classes in name order, so one with fewer classes, or other ones, numbers them differently.

    Args:
      source: what was read; without class names it is returned as it is.
      names: of the classes that the model was trained on, in the order of their numbers; () where unknown.
      where: what the user gave, for the message.

    Raises:
      InputError: a class that is not among `names`.
    """
    own = source.info.label_names
    if not own or not names or own == names:
        return source
    if strange := [name for name in own if name not in names]:
        raise InputError(
            f"{where}: the classes {some(strange)} are not among those of the run ({some(names)}); rename their "
            "folders or move them away"
        )
    number = np.array([names.index(name) for name in own], np.int32)
    arrays = {
        name: unlabeled.renumbered(number, value) if name == "label" else value for name, value in source.arrays.items()
    }
    info = replace(source.info, label_names=names, num_classes=len(names))
    return replace(
        source, info=info, arrays=arrays, records=_Renumbered(source.records, number), fetch=_fetch(source, number)
    )


def _fetch(source: Source, number: np.ndarray) -> Callable[[Arrays, jax.Array], Batch]:
    if source.arrays or source.pipeline == "grain":
        return source.fetch  # arrays are numbered already; what is on disk is fetched through its records

    def fetch(arrays: Arrays, index: jax.Array) -> Batch:
        batch = source.fetch(arrays, index)
        label = batch["label"]
        return batch | {"label": jnp.where(label < 0, label, jnp.asarray(number)[label])}

    return fetch
