"""Hashes of trees of arrays."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np


def sha256(tree: Any) -> str:
    """Returns the SHA-256 of all arrays of a tree, with their names, types and shapes, in hexadecimal."""
    whole = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        value = np.ascontiguousarray(leaf)
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        # Equal bytes under other names or in another shape are other weights.
        whole.update(f"{name} {value.dtype.str} {list(value.shape)}\n".encode())
        whole.update(value.tobytes())
    return whole.hexdigest()
