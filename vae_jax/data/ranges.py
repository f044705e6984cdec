"""Ranges of the user's images: which numbers are 0 and 1 to the model.

Every likelihood and network takes images in [0, 1]. Floats in [-1, 1] or 0..255 are recognized; whatever could be
something else (z-scores, say) needs `data.range`, and the message holds it, with bounds that hold all values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from vae_jax.data import values
from vae_jax.data.config import MOST_RANGE
from vae_jax.errors import InputError, option
from vae_jax.spec import Units

Wanted = Literal["auto"] | tuple[float, float]
_ROWS = 1024  # images mapped at a time: float64 takes twice as much as what is kept
_CLOSE = 1e-3  # as far beyond 0 and 1 rounding takes values that were meant to end there
_HALF = 0.5  # below it, no number is far from the middle of [-1, 1]: rather it is another scale


class Extent(NamedTuple):
    """The least and the greatest observed number of images, all integers or all floats.

    Attributes:
      low: the least.
      high: the greatest.
      is_float: whether they are floats.
    """

    low: float
    high: float
    is_float: bool


def extent(known: Mapping[str, np.ndarray]) -> Extent | None:
    """Returns the extent of arrays by name; None of booleans, which are black and white."""
    numbers = [value for value in known.values() if value.dtype != np.bool_]
    if not numbers:
        return None
    low, high = min(value.min() for value in numbers), max(value.max() for value in numbers)
    return Extent(low, high, numbers[0].dtype.kind == "f")


def units(
    known: Mapping[str, np.ndarray], path: Path | str, strict: bool = True, wanted: Wanted = "auto"
) -> Units | None:
    """Returns what the observed numbers of images are to be mapped from; None where the model takes them as they are.

    Args:
      known: observed numbers by the name of their array, all of one scale.
      path: where they come from, for the message.
      strict: whether they are a data set to train on. False for images that a trained model looks at: its own range is
        `wanted`, and nothing is guessed.
      wanted: `data.range`.

    Returns:
      the range as units, or None.

    Raises:
      InputError: they are outside of the range that is wanted, or of every range that is recognized.
    """
    found = extent(known)
    names = " and ".join(known)
    if found is None:
        if strict and wanted != "auto":
            raise InputError(f"data.range: {path}: {names} holds booleans, which have no range; leave it out")
        return None
    if wanted == "auto":
        guess = _guess(found) if strict else None
        if guess is None:
            _check_unit(known, found, path, strict)
        return guess
    low, high = wanted
    if found.low == found.high and strict:
        raise InputError(f"{path}: {names}: all values are the same, so there is nothing to learn; save other images")
    # In the type that images are kept in, or 0.1 as float32 would be above 0.1.
    least, most = (float(np.float32(end)) for end in (found.low, found.high))
    if least < float(np.float32(low)) or most > float(np.float32(high)):
        seen = f"{path}: {names} has values in [{values.number(found.low)}, {values.number(found.high)}], not in"
        if strict:
            fix = f"use {option('data.range', *outward(found.low, found.high))}"
            raise InputError(f"{seen} the range {low:g} to {high:g} of data.range; {fix}")
        ends = f"({float(found.low)!r}, {float(found.high)!r})"
        line = ", ".join(f"numpy.interp({name}, {ends}, ({low!r}, {high!r}))" for name in known)
        raise InputError(f"{seen} [{low:g}, {high:g}], the range that the model was trained on; save {line}")
    return None if found.is_float and wanted == (0.0, 1.0) else Units.between(low, high)


def are_levels(known: Mapping[str, np.ndarray]) -> bool:
    """Says whether floats for a model that takes gray levels are these: whole, 0 to 255, and not 0 and 1 alone."""
    floats = bool(known) and all(value.dtype.kind == "f" for value in known.values())
    ends = extent(known) if floats else None
    if ends is None or ends.low < 0 or not 1 < ends.high <= 255:
        return False
    return all(is_whole(value) for value in known.values())


def is_whole(values: np.ndarray) -> bool:
    """Says whether numbers are whole."""
    return values.dtype.kind != "f" or bool((np.rint(values) == values).all())


def note_levels(path: Path | str, names: Iterable[str]) -> str:
    """Returns the line that says that floats are read as gray levels."""
    return f"{path}: {' and '.join(names)} holds whole numbers beyond 1, read as gray levels 0 to 255"


def _guess(found: Extent) -> Units | None:
    """Returns the range of floats that go beyond [0, 1] and can hardly be of another one."""
    if not found.is_float:
        return None
    with np.errstate(over="ignore"):
        low, high = float(np.float32(found.low)), float(np.float32(found.high))
    if -1 <= low < -_CLOSE and high <= 1 and max(-low, high) >= _HALF:
        return Units.between(-1, 1)
    if low >= 0 and values.DARK <= high <= 255:
        return Units.between(0, 255)
    return None


def _check_unit(known: Mapping[str, np.ndarray], found: Extent, path: Path | str, strict: bool) -> None:
    """Checks that images are brightness, 0 to 1 or 0 to 255; the advice for others is their range."""
    with np.errstate(over="ignore"):
        low, high = (float(np.float32(end)) if found.is_float else int(end) for end in (found.low, found.high))
    numbers = {name: value for name, value in known.items() if value.dtype != np.bool_}
    is_inside = low >= 0 and high <= 1
    is_near = low >= -_CLOSE and _HALF < high <= 1 + _CLOSE
    is_large = max(-low, high) > MOST_RANGE
    if not strict or not found.is_float or is_inside or is_near or is_large or found.low == found.high:
        values.check_scale(numbers, path, strict)
        return
    raise InputError(
        f"{path}: {' and '.join(numbers)} has values in [{values.number(found.low)}, {values.number(found.high)}], not "
        f"in [0, 1]; use {option('data.range', *outward(found.low, found.high))}, or the ends that they can have"
    )


def outward(low: float, high: float) -> tuple[float, float]:
    """Returns two numbers of few digits, the nearest ones that everything from `low` to `high` lies between."""
    low, high = float(low), float(high)
    if low == int(low) and high == int(high):
        return int(low), int(high)
    digits = 1 - math.floor(math.log10(high - low))
    while True:
        step = 10.0**-digits
        # From decimal text, as a user types them: 0.3, not 0.30000000000000004.
        ends = float(f"{math.floor(low / step)}e{-digits}"), float(f"{math.ceil(high / step)}e{-digits}")
        if ends[0] <= low and high <= ends[1]:
            return ends
        digits -= 1


def within(images: np.ndarray, units: Units) -> np.ndarray:
    """Returns images [N, H, W, C] as the model takes them: float32 in [0, 1], or uint8 of gray levels 0 to 255.

    Args:
      images: the user's numbers, observed ones all in the range of `units`, or bool.
      units: of `units`.
    """
    if images.dtype == np.bool_:
        return images.astype(np.uint8) * np.uint8(255)
    if images.dtype.kind in "iu" and units == Units.between(0, 255):
        return np.ascontiguousarray(images, np.uint8)
    out = np.empty(images.shape, np.float32)
    for start in range(0, len(images), _ROWS):
        # Rounding takes an end beyond 0 or 1 by less than float32 can tell; what was not observed may be anything.
        np.clip(units.within(images[start : start + _ROWS]), 0, 1, out=out[start : start + _ROWS])
    return out


def note(path: Path | str, units: Units) -> str:
    """Returns the line that says what is done."""
    low, high = units.range
    return (
        f"{path}: numbers from {low:g} to {high:g} are 0 to 1 to the model, and {low:g} to {high:g} again in what is "
        f"written ({option('data.range', low, high)})"
    )
