"""SHA-256 checksums of what a checkpoint holds: every leaf of the state, and the record that lists them.

The record is one JSON object {"position", "leaves", "sha256"}: the position of the data stream, one line per leaf, and
the checksum of these two. It is stored inside the checkpoint, so that it appears and disappears with it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

Array = jax.Array | np.ndarray

_PARTS = ("leaves", "position", "sha256")


class Damaged(ValueError):
    """What was read is not what was written."""


class Foreign(ValueError):
    """What was written is whole, but it is the state of another model."""


def record(leaves: Mapping[str, Array], position: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the JSON object to store beside the leaves.

    Args:
      leaves: path -> array.
      position: JSON-able position of the data stream.
    """
    # Through JSON and back, since the checksum must be that of what a reader sees: tuples come back as lists.
    body = {"leaves": _lines(leaves), "position": json.loads(json.dumps(position))}
    return {**body, "sha256": _of_json(body)}


def open_record(
    held: object, like: Mapping[str, Array | jax.ShapeDtypeStruct]
) -> tuple[dict[str, Any], dict[str, str] | None]:
    """Returns (position, line of each leaf) of a stored record; checkpoints of version 0.1 have a position only.

    Args:
      held: the JSON object as read.
      like: path -> array or shape, of the state that is about to be read.

    Raises:
      Damaged: the record was changed after it was written.
      Foreign: the leaves have other names, types or shapes than those of `like`.
    """
    if not isinstance(held, dict):
        raise Damaged("its record is damaged")
    # A record of version 0.1 is the position itself.
    if not any(name in held for name in _PARTS):
        return held, None
    # One damaged name must not turn the record into one of version 0.1, which is not checked.
    if sorted(held) != sorted(_PARTS) or held["sha256"] != _of_json({n: held[n] for n in ("leaves", "position")}):
        raise Damaged("its record does not match its checksum")
    lines = held["leaves"]
    # Both ways: leaves that only the checkpoint has, and leaves that only the model has. No array is read for this.
    for path in sorted({*lines, *like}):
        saved = lines[path].rpartition(" ")[0] if path in lines else "nothing"
        wanted = _kind(like[path]) if path in like else "nothing"
        if saved != wanted:
            raise Foreign(f"{path} holds {saved}, the model needs {wanted}")
    return held["position"], lines


def check(leaves: Mapping[str, Array], lines: Mapping[str, str]) -> None:
    """Checks the values of the leaves.

    Raises:
      Damaged: a leaf that does not match its checksum; the first one is named.
    """
    for path, line in _lines(leaves).items():
        if lines.get(path) != line:
            raise Damaged(f"{path} does not match its checksum")


def _lines(leaves: Mapping[str, Array]) -> dict[str, str]:
    # Hosts must gather in the same order, so this is done in turn. hashlib releases the GIL: threads do the rest.
    held = [_host(leaf) for leaf in leaves.values()]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(leaves, pool.map(_line, held)))


def _line(host: np.ndarray) -> str:
    # As bytes: bfloat16 and other types of JAX's own have no buffer that hashlib could read.
    numbers = np.ascontiguousarray(host).reshape(-1).view(np.uint8).data
    return f"{_kind(host)} {hashlib.sha256(numbers).hexdigest()}"


def _host(leaf: Array) -> np.ndarray:
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        # Parts of this leaf lie on other hosts. All of them save together, so all of them are here.
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    return np.asarray(leaf)


def _kind(leaf: Array | jax.ShapeDtypeStruct) -> str:
    return f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"


def _of_json(value: object) -> str:
    # Sorted, so that the order of a dict does not change the checksum.
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
