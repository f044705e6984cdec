"""Where the first stage of a second one comes from: its run, the step, and the hash of its weights."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import jax
import numpy as np


class Stage1(NamedTuple):
    """The first stage that a run was given. Its configuration is `model.first`, its weights are in the checkpoints.

    Attributes:
      path: of its run folder, absolute.
      step: of the checkpoint that was taken.
      sha256: of the weights and the state that were taken, in hexadecimal.
    """

    path: str
    step: int
    sha256: str


def weights_sha256(tree: Any) -> str:
    """Returns the SHA-256 of all arrays of a tree, with their names, types and shapes."""
    whole = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        value = np.ascontiguousarray(leaf)
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        whole.update(f"{name} {value.dtype.str} {list(value.shape)}\n".encode())
        whole.update(value.tobytes())
    return whole.hexdigest()
