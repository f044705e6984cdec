"""What is observed of the user's arrays: NaN is missing, and so is what a mask beside them says."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vae_jax.errors import InputError


def seen(
    value: np.ndarray,
    path: Path | str,
    name: str,
    mask: np.ndarray | None = None,
    mask_name: str = "mask",
    words: tuple[str, str] = ("images", "pixels"),
) -> np.ndarray:
    """Returns what is observed of an array, by its mask and by NaN.

    Args:
      value: the array, its last axis that of channels.
      path: of the file, for messages.
      name: of the array.
      mask: bool of its shape, or without the last axis, True where it is observed; None where NaN alone says it.
      mask_name: of the mask.
      words: what the examples are called, and what one entry of a mask without the last axis stands for.

    Returns:
      bool of the array's shape, in memory of its own.

    Raises:
      InputError: a mask of another shape or type, or that is True at NaN; infinite values that are observed.
    """
    there = np.isnan(value) if value.dtype.kind == "f" else np.zeros(value.shape, bool)
    found = ~there
    if mask is not None:
        found = _mask(mask, value.shape, path, mask_name, words)
        if (said := int((found & there).sum())) > 0:
            raise InputError(
                f"{path}: {mask_name} is True at {said} NaN of {name}, which are no observations; save {mask_name} & "
                f"~numpy.isnan({name})"
            )
    if value.dtype.kind == "f":
        bad = np.isinf(value) & found
        if bad.any():
            raise endless(int(bad.sum()), int(np.flatnonzero(bad.reshape(len(value), -1).any(1))[0]), path, name)
    return found


def endless(count: int, first: int, path: Path | str, name: str) -> InputError:
    """Returns the error about infinite values.

    Args:
      count: of them.
      first: the row that holds the first.
      path: of the file.
      name: of the array.

    Returns:
      the error, to be raised by the caller.
    """
    return InputError(
        f"{path}: {name} has {count} infinite values, the first in row {first}; if they are missing, save "
        f"numpy.where(numpy.isfinite({name}), {name}, numpy.nan)"
    )


def empty(names: str, path: Path | str, what: str = "examples") -> InputError:
    """Returns the error about examples, called `what`, of which nothing is observed."""
    return InputError(f"{path}: {names}: every value is missing; save {what} with observed values")


def _mask(mask: np.ndarray, shape: tuple[int, ...], path: Path | str, name: str, words: tuple[str, str]) -> np.ndarray:
    """Returns a mask as bool of a shape [N, ..., C]: given of every number, or [N, ...] of whole pixels."""
    if mask.dtype != np.bool_:
        raise InputError(
            f"{path}: {name} has type {mask.dtype}; save booleans, True where a value is observed: {name}.astype(bool)"
        )
    if mask.shape not in (shape, shape[:-1]):
        each = f" or {list(shape[:-1])} (whole {words[1]})"
        raise InputError(
            f"{path}: {name} has the shape {list(mask.shape)}, but the {words[0]} are {list(shape)}; save one boolean "
            f"for each of their values, {list(shape)}{each}"
        )
    # Memory of its own: a broadcast view has none, and cannot be written to a run folder or a device as it is.
    return np.ascontiguousarray(np.broadcast_to(mask.reshape(*shape[:-1], -1), shape))
