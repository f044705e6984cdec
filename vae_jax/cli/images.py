"""Examples of a run's split that a command is asked to work on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vae_jax.errors import InputError

if TYPE_CHECKING:
    from vae_jax.runs.run import Run


def shown_split(run: Run, split: str | None) -> str:
    """Returns the split to look at: the one asked for, else the one that the run evaluates."""
    return split or run.config.evaluation.split


def chosen(run: Run, split: str, indices: Sequence[int]) -> dict[str, Any]:
    """Returns examples of a split by index, as the model sees them: a batch of float32 images [B, H, W, C].

    Raises:
      InputError: unknown split, or an index that it does not have.
    """
    import numpy as np

    from vae_jax.data.pipeline import examples

    source = run.source(split)
    for i in indices:
        if not 0 <= i < source.size:
            raise InputError(
                f"image {i}: the {split} split of {run.config.data.shown} has {source.size:,} images; "
                f"choose 0 to {source.size - 1}"
            )
    return examples(source, run.config.data, np.asarray(indices))


def first(run: Run, split: str, n: int, option: str = "--n") -> dict[str, Any]:
    """Returns the first n examples of a split.

    Raises:
      InputError: n is not positive, or more than there are.
    """
    at_least_one(option, n)
    size = run.source(split).size
    if n > size:
        raise InputError(f"{option} {n}: the {split} split of {run.config.data.shown} has {size:,} images")
    return chosen(run, split, range(n))


def at_least_one(option: str, value: int) -> None:
    """Raises InputError unless value >= 1."""
    if value < 1:
        raise InputError(f"{option} {value}: must be 1 or more")
