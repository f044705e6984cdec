"""Arrays in memory as data: the same arrays that an .npz file holds, checked by the same rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vae_jax.errors import InputError


def is_arrays(given: Any) -> bool:
    """Says whether something is an array (numpy's, jax's) or a mapping of names to arrays, not a path or a name."""
    return isinstance(given, Mapping) or (hasattr(given, "__array__") and hasattr(given, "shape"))


def named(given: Any, name: str) -> dict[str, np.ndarray]:
    """Returns the arrays by name: `images` for one that comes alone.

    Args:
      given: an array [N, H, W] or [N, H, W, C], or a mapping with `images` and, where there are any, `labels` [N],
        `factors` [N, F], `cond` [N, F], or with splits of its own (`train_images`, `test_images`, ...).
      name: of the argument, for messages.

    Raises:
      InputError: an entry that is no array of numbers.
    """
    held = dict(given) if isinstance(given, Mapping) else {"images": given}
    found = {str(key): np.asarray(value) for key, value in held.items()}
    for key, value in found.items():
        if value.dtype.kind not in "biuf":
            raise InputError(f"{name}: {key} is an array of {value.dtype}; give an array of numbers")
    return found
