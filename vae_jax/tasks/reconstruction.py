"""Examples beside their reconstructions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from vae_jax.evaluation.codes import decode_all, encode_all
from vae_jax.options.typed import items
from vae_jax.runs.inputs import file_names, shown_input, user_batches
from vae_jax.runs.run import Run
from vae_jax.spec import Units, models, users
from vae_jax.tasks import given
from vae_jax.train import TrainState

if TYPE_CHECKING:
    from matplotlib.figure import Figure


USUAL = 32  # examples where no number was given


class Reconstructions(NamedTuple):
    """Examples and what a model makes of their codes.

    Attributes:
      index: position in the data set, int32 [N].
      x: the examples as the model sees them, float32 [N, *x.shape], in the user's units; NaN where they are missing.
      reconstructions: E[x | E[z|x]], float32 [N, *x.shape], in the user's units.
      mse: mean squared error of each over what is observed of it, in the model's units (images: in [0, 1]), float32
        [N]; 0 where nothing is.
      title: of the figure.
      units: the user's, which the figure is not in.
      names: the file of each, of examples that have one; else ().
      note: what the user should know of the choice of examples, or "".
    """

    index: np.ndarray
    x: np.ndarray
    reconstructions: np.ndarray
    mse: np.ndarray
    title: str
    units: Units | None = None
    names: tuple[str, ...] = ()
    note: str = ""

    def figure(self) -> Figure:
        """Returns a picture of the pairs."""
        from vae_jax.figures import pairs

        if self.x.ndim == 3:  # series [N, T, C]
            from vae_jax.figures.lines import lines

            return lines(self.x, self.reconstructions, title=f"{self.title}; dashes: reconstructions")
        halves = (models(values, self.units) for values in (self.x, self.reconstructions))
        return pairs(*halves, title=self.title)


def reconstruct(
    run: Run | Path | str,
    x: Any = None,
    *,
    n: int | None = None,
    indices: Sequence[int] = (),
    split: str | None = None,
    batch_size: int = 500,
    step: int | Literal["best"] | None = None,
    state: TrainState | None = None,
) -> np.ndarray:
    """Returns what a run makes of examples: E[x | E[z|x]].

    Args:
      run: a run, or the path of its folder.
      x: the examples, as for `encode`; None takes the run's own.
      n: without x, the first n of the split; None for 32, or all of fewer.
      indices: without x, these examples of the split instead.
      split: as for `encode`; without x of the run's data, None for the one that it evaluates.
      batch_size: examples at a time; no number depends on it.
      step: of the checkpoint; None for the newest.
      state: looks at this state instead of a checkpoint.

    Returns:
      float32 [N, *x.shape], in the order of the examples and their units: images in [0, 1] are [N, H, W, C].

    Raises:
      InputError: examples that cannot be read, or that this model cannot take; an argument out of range.
    """
    options = {"split": split, "batch_size": batch_size, "step": step, "state": state}
    return pairs(run, x, n=n, indices=indices, **options).reconstructions


def pairs(
    run: Run | Path | str,
    x: Any = None,
    *,
    n: int | None = None,
    indices: Sequence[int] = (),
    split: str | None = None,
    batch_size: int = 500,
    step: int | Literal["best"] | None = None,
    state: TrainState | None = None,
) -> Reconstructions:
    """Returns examples with their reconstructions; the arguments are those of `reconstruct`.

    Args:
      run: a run, or the path of its folder.
      x: the examples, all of them; None takes the run's own.
      n: without x, the first n of the split; None for `USUAL`, or all of fewer.
      indices: without x, the examples instead, in this order; () for the first n.
      split: of the run's data, or of x where that holds splits; None for the one that it evaluates.
      batch_size: examples of x at a time.
      step: of the checkpoint; None for the newest.
      state: looks at this state instead of a checkpoint.

    Returns:
      originals and E[x | E[z|x]], with the mean squared error of each; `.figure()` draws them.

    Raises:
      InputError: no such example or split, x that cannot be read, or an argument out of range.
    """
    run, indices = given.opened(run), items(indices, int, "indices")
    batch_size, asked, split = (
        given.at_least("batch_size", batch_size),
        split is not None,
        given.shown_split(run, split),
    )
    if x is not None:
        given.refuse_indices(indices)
        batches, source = user_batches(run, x, split, batch_size, asked=asked)
        state = given.restored(run, step, state)
        found = made(run, state, batches, "")._replace(names=file_names(source))
        about = f"reconstructions of {shown_input(x)}, mean squared error {found.mse.mean():.4f}"
        return found._replace(title=f"{given.title(run, state)}: {about}")
    batch = given.chosen(run, split, indices) if indices else given.first(run, split, n, USUAL)
    there = run.source(split).size
    note = given.few(there, USUAL, f"examples of the {split} split") if n is None and not indices else ""
    state = given.restored(run, step, state)
    found = made(run, state, [batch], "")
    about = f"reconstructions, {split} split, mean squared error {found.mse.mean():.4f}"
    return found._replace(title=f"{given.title(run, state)}: {about}", note=note)


def made(run: Run, state: TrainState, batches: Iterable[Mapping[str, Any]], title: str) -> Reconstructions:
    """Returns the reconstructions of batches.

    Args:
      run: whose model reconstructs.
      state: its weights.
      batches: examples as `evaluate` takes them.
      title: of the figure.

    Returns:
      originals and E[x | E[z|x]], with the mean squared error of each.
    """
    shown: list[np.ndarray] = []
    observed: list[np.ndarray] = []

    def kept():
        for batch in batches:
            shown.append(np.asarray(batch["x"], np.float32))
            observed.append(np.asarray(batch["mask"]) if "mask" in batch else np.ones(shown[-1].shape, bool))
            yield batch

    codes = encode_all(run.model, state, kept())
    again = decode_all(run.model, state, codes.mean, cond=codes.cond)
    x, seen, axes = np.concatenate(shown), np.concatenate(observed), tuple(range(1, shown[0].ndim))
    again = run.model.about.likelihood.matched(again, x)
    # The 0 that stands for a missing value is none: neither of the error, nor of what is shown.
    if seen.all():
        mse = np.square(x - again).mean(axes)
    else:
        mse = np.square(x - again).sum(axes, where=seen) / np.maximum(seen.sum(axes), 1)
        x = np.where(seen, x, np.float32(np.nan))
    units = run.spec.units
    return Reconstructions(codes.index, users(x, units), users(again, units), mse, title, units)
