"""Arrays of numbers that are no pictures, as series and vectors read them: shape, type, and what is observed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from vae_jax.data import missing, values
from vae_jax.errors import InputError

_LABELS = ("labels", "y")  # the first that there is


class Form(NamedTuple):
    """What one array of a data set is.

    Attributes:
      name: under which it is saved.
      examples: what they are called.
      axes: in words, with the name of each.
      whole: what one entry of a mask without the last axis stands for.
    """

    name: str
    examples: str
    axes: str
    whole: str

    @property
    def rank(self) -> int:
        """Number of axes."""
        return self.axes.count(",") + 1


class Numbers(NamedTuple):
    """Checked arrays.

    Attributes:
      x: as the file has them, 0 where missing: floats of 4 or 8 bytes, or whole numbers (of bool, uint8).
      seen: what is observed, bool of the shape of x.
      labels: int32 [N], -1 where unknown; None where none is known.
      groups: str [N], or None.
      name: of the array, for messages.
    """

    x: np.ndarray
    seen: np.ndarray
    labels: np.ndarray | None
    groups: np.ndarray | None
    name: str


def main(held: Mapping[str, np.ndarray]) -> str | None:
    """Returns the name of the one array that is no labels, groups or mask; None where there is not one alone."""
    rest = [name for name in held if name not in (_labels(held), "groups", "mask")]
    return rest[0] if len(rest) == 1 else None


def _labels(held: Mapping[str, np.ndarray]) -> str:
    """Returns the name of the labels, "labels" where there are none."""
    return next((name for name in _LABELS if name in held), _LABELS[0])


def checked(held: Mapping[str, np.ndarray], where: str, form: Form) -> Numbers:
    """Returns the one array of a file, and what belongs to its examples.

    Args:
      held: arrays by name: one of any name, `labels` (or `y`) and `groups` [N], and `mask`, bool of its shape or
        without the last axis, True where a value is observed. NaN is missing, too.
      where: they come from, for messages.
      form: of the array.

    Raises:
      InputError: another number, shape or type of arrays, infinite values, or nothing that is observed.
    """
    found = main(held)
    if found is None:
        raise InputError(
            f"{where}: needs one array of {form.examples} (has: {', '.join(held) or 'nothing'}); save "
            f"numpy.savez('data.npz', {form.name}=x), and labels, groups and mask beside it"
        )
    x, name = held[found], found or "x"
    if x.ndim != form.rank or 0 in x.shape:
        raise InputError(
            f"{where}: {name} must be numbers {form.axes} and not empty, is {x.shape}; {_shaped(name, x.shape, form)}"
        )
    if x.dtype.kind not in "biuf":
        raise InputError(f"{where}: {name} has type {x.dtype}; save {name}.astype('float32')")
    seen = missing.seen(x, where, name, held.get("mask"), "mask", (form.examples, form.whole))
    if not seen.any():
        raise missing.empty(name, where, form.examples)
    kind = {"b": np.uint8, "f": np.float64 if x.dtype.itemsize > 4 else np.float32}.get(x.dtype.kind, x.dtype)
    x = np.where(seen, x, x.dtype.type(0)).astype(kind)
    own = {"labels": held.get(_labels(held)), "groups": held.get("groups")}
    given = {name: value for name, value in own.items() if value is not None}
    return Numbers(x, seen, *values.beside(given, len(x), form.examples, where), name)


def _shaped(name: str, shape: tuple[int, ...], form: Form) -> str:
    """Returns what to do about an array of another shape."""
    if 0 in shape or not shape or len(shape) > form.rank > 2:
        return f"save {form.examples} of that shape"
    if len(shape) == form.rank - 1:
        of_one = f"for one channel save {name}[..., None], for one example {name}[None]"
        return of_one if form.rank > 2 else f"save {name}[..., None]"
    return f"save {name}.reshape(len({name}), -1)" if form.rank == 2 else f"save {form.examples} of that shape"
