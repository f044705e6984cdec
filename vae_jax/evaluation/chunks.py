"""Splits cut anew for programs that hold many codes per image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from vae_jax.errors import InputError
from vae_jax.evaluation.likelihood import model_inputs

# Codes decoded at a time, and their pixels together: the gradient needs every layer of 4000 images of 28 x 28.
ROWS, PIXELS = 4000, 4000 * 28 * 28


def chunks(batches: Iterable[Mapping[str, Any]], samples: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Yields (examples, how many of them count), cut anew; the last are filled up to a power of two with the last one.

    As many are taken as bound the memory with `samples` codes each. Where an example lies in its program does not
    depend on the batches: rounding, which chains amplify, is the same.

    Raises:
      InputError: no example.
    """
    held: dict[str, np.ndarray] = {}
    seen, size = 0, 1
    for raw in batches:
        n = len(raw["x"])
        # Set by the shape of the images, which all batches share.
        size = at_once(raw["x"].shape[1:], samples)
        # The index keys the noise of an example, wherever in a chunk it lies.
        index = np.asarray(raw.get("index", np.arange(seen, seen + n)), np.int32)
        seen += n
        new = {name: np.asarray(value) for name, value in {**model_inputs(raw), "index": index}.items()}
        # What a chunk left over comes before the new batch.
        held = {name: np.concatenate([held[name], value]) for name, value in new.items()} if held else new
        while len(held["index"]) >= size:
            yield {name: value[:size] for name, value in held.items()}, size
            held = {name: value[size:] for name, value in held.items()}
    if not seen:
        raise InputError("nothing to evaluate: the split is empty")
    if left := len(held["index"]):
        # A power of two, so that last chunks come in few sizes and few programs compile. The caller drops the copies.
        padding = min(size, 1 << (left - 1).bit_length()) - left
        yield {n: np.concatenate([v, np.repeat(v[-1:], padding, 0)]) for n, v in held.items()}, left


def at_once(image_shape: tuple[int, ...], samples: int) -> int:
    """Returns how many images [H, W, C] are done at a time with so many codes each, to bound memory."""
    return max(1, min(ROWS, PIXELS // math.prod(image_shape)) // samples)
