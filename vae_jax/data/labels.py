"""The labeled subset of semi-supervised training: balanced over classes, fixed by a seed of its own."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.data import unlabeled
from vae_jax.data.config import DataConfig
from vae_jax.data.source import Source
from vae_jax.errors import InputError

_CHUNK = 8192  # labels read at a time, where they come with images from disk


def attach(source: Source, config: DataConfig) -> Source:
    """Returns a training split with `labeled` set as `config.labels` asks, else to those whose label is known.

    Other splits, and one whose labels are all known, are returned as they are.

    Raises:
      InputError: no labels in the data, or not enough of a class.
    """
    if config.labels is None:
        return _known(source) if source.info.unlabeled else source
    if not source.info.num_classes:
        raise InputError(f"data.labels: {source.info.name!r} has no labels; leave data.labels unset, or use other data")
    text = (
        f"{source.info.protocol_text}; of the training examples {config.labels:,} are labelled, as many of each class "
        f"(data.label_seed {config.label_seed})"
    )
    info = replace(source.info, protocol_text=text)
    if source.split != "train":
        return replace(source, info=info)
    rows = choose(of(source), config.labels, source.info.num_classes, config.label_seed)
    return replace(source, info=info, labeled=rows)


def _known(source: Source) -> Source:
    """Returns the source with `labeled` set to the examples whose label is known."""
    text = f"{source.info.protocol_text}; examples of unknown label (-1) train without it, and no number reads it"
    info = replace(source.info, protocol_text=text)
    label = of(source) if source.split == "train" else np.zeros(0, np.int32)
    if not unlabeled.some(label):
        return replace(source, info=info)
    return replace(source, info=info, labeled=np.flatnonzero(label >= 0).astype(np.int32))


def of(source: Source) -> np.ndarray:
    """Returns the labels int [N] of a split that has labels, -1 where they are unknown."""
    return np.asarray(source.arrays["label"] if "label" in source.arrays else _read(source))


def choose(label: np.ndarray, count: int, classes: int, seed: int) -> np.ndarray:
    """Returns the rows int32 [count], ascending, of a subset with count // classes examples of each class.

    Where `classes` does not divide `count`, the first count % classes classes have one example more.

    Args:
      label: [N], in [0, classes), or -1: never chosen.
      count: examples to choose.
      classes: number of labels.
      seed: of numpy's RandomState, whose streams never change.

    Returns:
      row numbers into `label`; the same for the same arguments on every machine.

    Raises:
      InputError: fewer than one example per class, or a class that is too small.
    """
    if count < classes:
        raise InputError(f"data.labels: {count} examples cannot show {classes} classes; use {classes} or more")
    random = np.random.RandomState(seed)
    rows = []
    for c in range(classes):
        wanted = count // classes + (c < count % classes)
        held = np.flatnonzero(label == c)
        if len(held) < wanted:
            raise InputError(
                f"data.labels: {count} examples need {wanted} of class {c}, but the training split has {len(held)}; "
                f"use {len(held) * classes} or less"
            )
        rows.append(random.permutation(held)[:wanted])
    return np.sort(np.concatenate(rows)).astype(np.int32)


def _read(source: Source) -> np.ndarray:
    if source.pipeline == "device":  # computed: the compiler leaves the images out
        everything = jnp.arange(source.size, dtype=jnp.int32)
        return np.asarray(jax.jit(lambda index: source.fetch({}, index)["label"])(everything))
    parts = [np.arange(i, min(i + _CHUNK, source.size)) for i in range(0, source.size, _CHUNK)]
    return np.concatenate([source.records.rows(part)["label"] for part in parts])
