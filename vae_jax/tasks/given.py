"""What the tasks are given: a run or its path, numbers, and examples of a split, checked in one place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vae_jax import spaces
from vae_jax.data.pipeline import examples
from vae_jax.errors import InputError, command, option
from vae_jax.options.ranges import SAMPLES, SEED, Between
from vae_jax.options.typed import conform
from vae_jax.runs.run import Run
from vae_jax.train import TrainState


def opened(run: Run | Path | str, name: str = "run") -> Run:
    """Returns the run, opened where a path is given.

    Raises:
      InputError: it is neither a run nor the path of one.
    """
    if isinstance(run, Run):
        return run
    if isinstance(run, str | os.PathLike):
        return Run.load(run)
    raise InputError(f'{name}: {run!r} is neither a run nor a path; write vj.load("runs/mine"), for example')


def walkable(run: Run | Path | str) -> Run:
    """Returns the run, opened where a path is given, for a task that moves its latents along lines.

    Raises:
      InputError: it is neither a run nor the path of one, or its latents hold indices into a codebook.
    """
    run = opened(run)
    held = run.model.about.latents
    if spaces.is_nominal(held):
        # Between two indices lie entries that have nothing to do with either, and fractions that name none.
        raise InputError(
            f"{run.path}: its latents are {spaces.words(held)}, which cannot be moved along a line because indices "
            f"have no order; compare examples with {command('reconstruct', str(run.path))} instead"
        )
    return run


def restored(run: Run, step: int | Literal["best"] | None, state: TrainState | None = None) -> TrainState:
    """Returns the state that a task looks at: the given one, else that of a checkpoint, None for the newest.

    Raises:
      InputError: no such checkpoint.
    """
    return run.restore(conform(step, int | Literal["best"] | None, "step", 1000)) if state is None else state


def at_least(name: str, value: Any, least: int = 1) -> int:
    """Returns a whole number.

    Raises:
      InputError: it is another type, or less than `least`.
    """
    number = conform(value, int, name, least)
    if number < least:
        raise InputError(f"{option(name)}: {number} is out of range; it must be {least} or more")
    return number


def seed(value: Any) -> int:
    """Returns a seed.

    Raises:
      InputError: it is another type, or out of range.
    """
    return _within("seed", value, SEED, 0)


def importance(value: Any) -> int:
    """Returns a number of importance samples, k.

    Raises:
      InputError: it is another type, or out of range.
    """
    return _within("k", value, SAMPLES, 50)


def _within(name: str, value: Any, known: Between, example: int) -> int:
    number = conform(value, int, name, example)
    if not known.holds(number):
        raise InputError(f"{option(name)}: {number} is out of range; it must be {known.words}")
    return number


def shown_split(run: Run, split: Any) -> str:
    """Returns the split to look at: the given one, else the one that the run evaluates."""
    return conform(split, str | None, "split", "test") or run.config.evaluation.split


def chosen(run: Run, split: str, indices: Sequence[int], name: str = "indices") -> dict[str, Any]:
    """Returns examples of a split by index, as the model sees them: `x` float32 [B, *x.shape], `index` and the rest.

    Args:
      run: whose data they are.
      split: "train", "validation" or "test".
      indices: of the examples, in this order.
      name: of the argument that gave the indices, for messages.

    Returns:
      one batch, with the noise of an evaluation.

    Raises:
      InputError: unknown split, or an index that it does not have.
    """
    source = run.source(split)
    for i in indices:
        if not 0 <= i < source.size:
            few = f"; use {option('indices', *range(min(2, source.size)))}, say" if name == "indices" else ""
            raise InputError(
                f"{option(name)}: {i} is out of range; the {split} split of {run.config.data.shown} has "
                f"{source.size:,} examples, 0 to {source.size - 1}{few}"
            )
    return examples(source, run.config.data, np.asarray(indices))


def few(there: int, usual: int, what: str) -> str:
    """Returns the line that says that there are fewer examples than are usual where no number is given, or ""."""
    return f"{what}: {there}, fewer than the usual {usual}" if there < usual else ""


def first(run: Run, split: str, n: int | None, usual: int) -> dict[str, Any]:
    """Returns the first n examples of a split.

    Args:
      run: whose data they are.
      split: "train", "validation" or "test".
      n: how many; None for as many as usual, or all of fewer.
      usual: how many that is.

    Returns:
      one batch, with the noise of an evaluation.

    Raises:
      InputError: n is not positive, or more than there are.
    """
    size = run.source(split).size
    n = min(usual, size) if n is None else at_least("n", n)
    if n > size:
        raise InputError(
            f"{option('n')}: {n} is out of range; the {split} split of {run.config.data.shown} has {size:,} "
            f"examples; use {option('n', size)}"
        )
    return chosen(run, split, range(n))


def refuse_indices(indices: Sequence[int]) -> None:
    """Raises InputError for rows of the run's own data beside examples of the user's."""
    if indices:
        raise InputError(
            f"{option('indices', *indices)}: is not used with {option('x', flag='input')}, whose examples are all "
            "taken; leave it out"
        )


def title(run: Run, state: TrainState) -> str:
    """Returns "beta_vae, step 6,000", the beginning of the title of a picture."""
    return f"{run.experiment}, step {int(state.step):,}"
