"""Arrays in memory as data: the same arrays that an .npz file holds, checked by the same rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vae_jax.errors import InputError


def is_arrays(given: Any) -> bool:
    """Says whether something is an array, a list of numbers or a mapping of names to arrays, not a path or a name."""
    return isinstance(given, Mapping | list | tuple) or _is_array(given)


def _is_array(given: Any) -> bool:
    return hasattr(given, "__array__") and hasattr(given, "shape")


def named(given: Any, name: str) -> dict[str, np.ndarray]:
    """Returns the arrays by name: `images` for one that comes alone.

    Args:
      given: an array [N, H, W] or [N, H, W, C], also as lists, or a mapping with `images` and, where there are any,
        `labels` [N], `factors` [N, F], `cond` [N, F], `groups` [N], or with splits of its own (`train_images`,
        `test_images`, ...).
      name: of the argument, for messages.

    Raises:
      InputError: an entry that is no array of numbers, or two arrays without names.
    """
    if _is_pair(given):
        # numpy would stack two arrays of one shape to two examples, without a word.
        splits = ', or {"train_images": X, "test_images": y} for two splits' if np.ndim(given[1]) > 2 else ""
        raise InputError(
            f'{name}: two arrays do not say what each of them is; give {{"images": X, "labels": y}}{splits}'
        )
    held = dict(given) if isinstance(given, Mapping) else {"images": given}
    found = {str(key): _array(value, name, str(key)) for key, value in held.items()}
    for key, value in found.items():
        if value.dtype.kind not in ("biufU" if key == "groups" else "biuf"):
            raise InputError(f"{name}: {key} is an array of {value.dtype}; give an array of numbers")
    return found


def _is_pair(given: Any) -> bool:
    """Says whether something is (X, y); two pictures [H, W] in a list or tuple are an array of two."""
    if not (isinstance(given, list | tuple) and len(given) == 2 and all(map(_is_array, given))):
        return False
    return np.shape(given[0]) != np.shape(given[1]) or (isinstance(given, tuple) and np.ndim(given[0]) > 2)


def _array(value: Any, name: str, key: str) -> np.ndarray:
    try:
        return np.asarray(value)
    except ValueError:  # lists in lists, or arrays in a list, of different lengths
        raise InputError(
            f"{name}: {key} has parts of different shapes, so it is no array; give images [N, H, W] of one size, and "
            'labels apart, as in {"images": X, "labels": y}'
        ) from None
