"""Latent traversals of a run: one dimension moved at a time, decoded."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import numpy as np

from vae_jax import spaces
from vae_jax.errors import InputError, option
from vae_jax.evaluation import latents
from vae_jax.evaluation.codes import decode_all, encode_all
from vae_jax.evaluation.latents import Walk
from vae_jax.evaluation.likelihood import evaluate
from vae_jax.evaluation.stand_ins import stand_ins
from vae_jax.model import Batch
from vae_jax.options.typed import conform, items
from vae_jax.runs.inputs import shown_input, user_batches
from vae_jax.runs.run import Run
from vae_jax.runs.training_data import DataGone
from vae_jax.spec import Units, models, users
from vae_jax.tasks import given
from vae_jax.train import TrainState

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)
# Examples that stand for a split: their codes give the spread, the KL and the most central code.
EXAMPLES = 500


class Traversals(NamedTuple):
    """A latent traversal and its images: row r moves dimension `walk.dims[r]` through `walk.values[r]`.

    Attributes:
      walk: dimensions [R], their values [R, S], codes [R, S, n], KL [R] in nats.
      images: E[x|z], float32 [R, S, *x.shape], in the user's units.
      title: of the figure.
      units: the user's, which the figure is not in.
    """

    walk: Walk
    images: np.ndarray
    title: str
    units: Units | None = None

    def figure(self) -> Figure:
        """Returns a picture with one dimension per row."""
        from vae_jax.figures import traversal_grid

        return traversal_grid(models(self.images, self.units), self.walk, title=self.title)


def traverse(
    run: Run | Path | str,
    dims: Sequence[int] = (),
    *,
    steps: int = 11,
    reach: float = 2.5,
    quantiles: bool = False,
    index: int | None = None,
    x: Any = None,
    split: str | None = None,
    step: int | Literal["best"] | None = None,
    state: TrainState | None = None,
) -> Traversals:
    """Moves one latent dimension at a time and decodes; the others stay at the code of one example.

    Args:
      run: a run, or the path of its folder.
      dims: latent dimensions, in this order; () for the 12 of largest KL, largest first, without those below 0.01 nats.
      steps: values of each dimension.
      reach: range, in standard deviations of the prior either way (of the codes, for an autoencoder).
      quantiles: takes the values at equal steps of probability of the codes instead (0.5 % to 99.5 %).
      index: the example of the split to start from; None for the one, of 500 that stand for the split, whose code is
        most central.
      x: the example to start from, as for `encode`, in place of one of the split; of several, `index` says which.
      split: of the run's data, or of x where that holds splits; None for the one that it evaluates.
      step: of the checkpoint; None for the newest.
      state: looks at this state instead of a checkpoint.

    Returns:
      R rows of S codes and E[x|z] along them; `.figure()` draws them.

    Raises:
      InputError: latents that are indices into a codebook, no such dimension, example or split, an argument out of
        range.
    """
    run, steps, dims = given.walkable(run), given.at_least("steps", steps), items(dims, int, "dims")
    reach, quantiles = conform(reach, float, "reach", 2.5), conform(quantiles, bool, "quantiles", False)
    if not 0 < reach < float("inf"):
        raise InputError(f"{option('reach')}: {reach} is out of range; it must be positive")
    variables = spaces.variables(run.model.about.latents)
    _check_dims(run, dims, len(variables))
    index = conform(index, int | None, "index", 0)
    named, split = split is not None, given.shown_split(run, split)
    state, around = given.restored(run, step, state), f"{split} split"
    start = None
    if x is not None:
        start = _of_user(run, x, index, split, named)
        # What stands for the run's data, for spread and KL, is of its own split.
        around, index, named, split = f"from {shown_input(x)}", None, False, run.config.evaluation.split
    try:
        many = given.chosen(run, split, run.rows(split, EXAMPLES).tolist())
    except DataGone as gone:
        # Without its data a run still has images to start from: those that it draws.
        if index is not None or named:
            raise
        many = stand_ins(run, state, EXAMPLES, gone)
        around = around if start is not None else "around its own samples"
        what = "the KL of dimensions is that of" if start is not None else "the traversals start from"
        logger.warning("%s: its data are not there; %s its own samples", run.path, what)
    if index is not None:
        start = given.chosen(run, split, [index], "index")
    codes = encode_all(run.model, state, [many])
    result = evaluate(run.model, state, [many], key=jax.random.key(0))
    own = None if start is None else encode_all(run.model, state, [start])
    with np.errstate(over="ignore", invalid="ignore"):  # codes beyond float32 are refused by decode_all
        walk = latents.walk(
            codes,
            result.kl_per_dim,
            dims=dims,
            base=None if own is None else own.mean[0],
            prior=run.prior_unit,
            reach=reach,
            steps=steps,
            quantiles=quantiles,
            blocks=variables,
        )
    # The example that is started from keeps its own condition throughout.
    features = codes.cond if own is None else own.cond
    cond = None if features is None else features[latents.center(codes) if own is None else 0]
    # Of weights that diverged, the codes are not finite at any reach.
    scaled_by = ("reach", reach) if np.isfinite(codes.mean).all() else None
    images = decode_all(run.model, state, walk.codes, cond=cond, scaled_by=scaled_by)
    title = f"{given.title(run, state)}: latent traversals, {around}"
    return Traversals(walk, users(images, run.spec.units), title, run.spec.units)


def _check_dims(run: Run, dims: Sequence[int], size: int) -> None:
    """Raises InputError for a dimension that the latents, of `size` variables, do not have."""
    for d in dims:
        if not 0 <= d < size:
            raise InputError(
                f"{option('dims')}: {d} is out of range; {run.path} has {size} latent dimensions, choose 0 to "
                f"{size - 1}"
            )


def _of_user(run: Run, x: Any, index: int | None, split: str, asked: bool) -> Batch:
    """Returns the one of the user's examples that a traversal starts from, as a batch.

    Raises:
      InputError: there are several, and `index` names none of them.
    """
    batches, source = user_batches(run, x, split, EXAMPLES, asked=asked)
    if index is None and source.size > 1:
        raise InputError(
            f"{option('x', flag='input')}: holds {source.size:,} examples, but a traversal starts from one; name it "
            f"with {option('index', 0)}, say"
        )
    row = index or 0
    if not 0 <= row < source.size:
        raise InputError(
            f"{option('index')}: {row} is out of range; {option('x', flag='input')} holds {source.size:,} examples, 0 "
            f"to {source.size - 1}"
        )
    batch = next(itertools.islice(batches, row // EXAMPLES, None))
    return {name: value[row % EXAMPLES : row % EXAMPLES + 1] for name, value in batch.items()}
