"""Paths through latent space, decoded: between two examples, and from one attribute to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from vae_jax.errors import InputError, choice, nearest, option
from vae_jax.evaluation import latents
from vae_jax.evaluation.codes import decode_all, encode_all
from vae_jax.options.typed import conform, items
from vae_jax.runs.inputs import file_names, shown_input, user_batches
from vae_jax.runs.run import Run
from vae_jax.spec import Units, models, users
from vae_jax.tasks import given
from vae_jax.train import TrainState

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Path_ = Literal["linear", "spherical"]
PAIRS = 4  # of a split's first examples, between which paths go where none were named
USUAL = 8  # examples that are moved where no number was given

_UNKNOWN = np.iinfo(np.int64).min  # stands for a label that is not known


class Interpolations(NamedTuple):
    """P paths of S codes between pairs of examples.

    Attributes:
      index: the pairs, int [P, 2]: rows of the split, or of the user's own examples.
      codes: float64 [P, S, n], both ends included.
      images: E[x|z], float32 [P, S, *x.shape], in the user's units.
      ends: the examples, float32 [P, 2, *x.shape], in the user's units.
      title: of the figure.
      units: the user's, which the figure is not in.
      names: what the rows of `index` are called; () for their numbers.
      note: what the user should know of the choice of examples, or "".
    """

    index: np.ndarray
    codes: np.ndarray
    images: np.ndarray
    ends: np.ndarray
    title: str
    units: Units | None = None
    names: tuple[str, ...] = ()
    note: str = ""

    def figure(self) -> Figure:
        """Returns a picture with one path per row, between its two examples."""
        from vae_jax.figures import grid

        rows = models(np.concatenate([self.ends[:, :1], self.images, self.ends[:, 1:]], axis=1), self.units)
        shares = [f"{t:.2g}" for t in np.linspace(0, 1, self.images.shape[1])]
        known = [Path(name).stem[:20] for name in self.names]
        names = [f"{known[a] if known else a} to {known[b] if known else b}" for a, b in self.index]
        columns = ["image", *shares, "image"]
        return grid(rows, title=self.title, rows=names, columns=columns, xlabel="share of the path")


def interpolate(
    run: Run | Path | str,
    indices: Sequence[int] = (),
    *,
    x: Any = None,
    steps: int = 10,
    path: Path_ = "linear",
    split: str | None = None,
    step: int | Literal["best"] | None = None,
    state: TrainState | None = None,
) -> Interpolations:
    """Decodes paths in latent space between pairs of examples.

    Args:
      run: a run, or the path of its folder.
      indices: examples of the split: from the first to the second, from the third to the fourth, and so on; () for the
        first 8, or the pairs of fewer.
      x: examples as for `encode`, two or more, in place of those: from each to the next.
      steps: codes on a path, both ends included; 2 or more.
      path: "linear" is straight, "spherical" a great circle, which keeps the norm typical of a Gaussian prior.
      split: of the run's data, or of x where that holds splits; None for the one that it evaluates.
      step: of the checkpoint; None for the newest.
      state: looks at this state instead of a checkpoint.

    Returns:
      P paths of S codes and E[x|z] along them; `.figure()` draws them.

    Raises:
      InputError: latents that are indices into a codebook, an odd number of examples, no such example or split, x that
        cannot be read or is one example, an argument out of range.
    """
    run, steps, indices = given.walkable(run), given.at_least("steps", steps, 2), items(indices, int, "indices")
    path = conform(path, Path_, "path", "linear")
    if x is not None:
        given.refuse_indices(indices)
        return _between(run, x, steps, path, split, step, state)
    if len(indices) % 2:
        raise InputError(
            f"{option('indices')}: {len(indices)} examples do not make pairs; give an even number, 2 or more"
        )
    split = given.shown_split(run, split)
    indices, note = (indices, "") if indices else _first_pairs(run, split)
    batch = given.chosen(run, split, indices)
    state = given.restored(run, step, state)
    codes = encode_all(run.model, state, [batch])
    z = latents.interpolate(codes.mean[0::2], codes.mean[1::2], steps, path)
    # The condition goes straight from that of one example to that of the other.
    cond = None if codes.cond is None else latents.interpolate(codes.cond[0::2], codes.cond[1::2], steps)
    x = np.asarray(batch["x"])
    title = f"{given.title(run, state)}: {path} interpolation between codes, {split} split"
    ends = x.reshape(-1, 2, *x.shape[1:])
    units, made = run.spec.units, decode_all(run.model, state, z, cond=cond)
    pairs = np.reshape(indices, (-1, 2))
    return Interpolations(pairs, z, users(made, units), users(ends, units), title, units, note=note)


def _first_pairs(run: Run, split: str) -> tuple[tuple[int, ...], str]:
    """Returns the first examples of a split, in pairs, and the line about fewer pairs than usual.

    Raises:
      InputError: there is one example.
    """
    source = run.source(split)
    if source.size < 2:
        larger = [name for name, size in source.info.sizes.items() if size > 1]
        fix = f"use {choice('split', larger)}" if larger else f"give two or more with {option('x', flag='input')}"
        raise InputError(f"{option('split')}: {split} holds 1 example, but a path goes from one to another; {fix}")
    pairs = min(PAIRS, source.size // 2)
    return tuple(range(2 * pairs)), given.few(pairs, PAIRS, f"pairs of examples of the {split} split")


def _between(
    run: Run, given_x: Any, steps: int, path: Path_, split: str | None, step: int | Literal["best"] | None, state: Any
) -> Interpolations:
    """Returns the paths from each of the user's examples to the next."""
    batches, source = user_batches(run, given_x, given.shown_split(run, split), asked=split is not None)
    if source.size < 2:
        raise InputError(
            f"{option('x', flag='input')}: holds 1 example, but a path goes from one to another; give two or more"
        )
    held, state = list(batches), given.restored(run, step, state)
    codes = encode_all(run.model, state, held)
    z = latents.interpolate(codes.mean[:-1], codes.mean[1:], steps, path)
    cond = None if codes.cond is None else latents.interpolate(codes.cond[:-1], codes.cond[1:], steps)
    x = np.concatenate([np.asarray(batch["x"]) for batch in held])
    rows, ends = np.arange(len(x)), np.stack([x[:-1], x[1:]], 1)
    title = f"{given.title(run, state)}: {path} interpolation between codes, {shown_input(given_x)}"
    units, made = run.spec.units, decode_all(run.model, state, z, cond=cond)
    pairs, names = np.stack([rows[:-1], rows[1:]], 1), file_names(source)
    return Interpolations(pairs, z, users(made, units), users(ends, units), title, units, names)


class Moves(NamedTuple):
    """Examples moved along the direction of an attribute.

    Attributes:
      index: the examples, int32 [N].
      direction: difference of the two mean codes, float64 [n].
      shares: how many differences are added, float64 [S].
      codes: float64 [N, S, n].
      images: E[x|z], float32 [N, S, *x.shape], in the user's units.
      x: the examples, float32 [N, *x.shape], in the user's units.
      title: of the figure.
      units: the user's, which the figure is not in.
      note: what the user should know of the choice of examples, or "".
    """

    index: np.ndarray
    direction: np.ndarray
    shares: np.ndarray
    codes: np.ndarray
    images: np.ndarray
    x: np.ndarray
    title: str
    units: Units | None = None
    note: str = ""

    def figure(self) -> Figure:
        """Returns a picture with one example per row, itself first."""
        from vae_jax.figures import grid

        return grid(
            models(np.concatenate([self.x[:, None], self.images], 1), self.units),
            title=self.title,
            rows=[str(int(i)) for i in self.index],
            columns=["image", *(f"{t:.2g}" for t in self.shares)],
            xlabel="differences of mean codes added",
        )


def arithmetic(
    run: Run | Path | str,
    from_: int,
    to: int,
    *,
    factor: str | None = None,
    n: int | None = None,
    steps: int = 6,
    strength: float = 1.0,
    learn: int = 10_000,
    split: str | None = None,
    step: int | Literal["best"] | None = None,
    state: TrainState | None = None,
) -> Moves:
    """Moves examples of one label (or factor value) towards another: z + t (mean code of `to` - mean code of `from_`).

    Args:
      run: a run, or the path of its folder.
      from_: the label that the examples have, or value of the factor.
      to: the label (or value) to go to.
      factor: the factor that the two are values of; None for the label.
      n: examples: the first n of the split with `from_`; None for 8, or all of fewer.
      steps: codes on each path, from the code itself (t = 0) to `strength`; 2 or more.
      strength: the last t: how many differences are added.
      learn: training examples whose codes give the means: the first ones, or some of every class of a sorted split.
      split: of the run's data; None for the one that it evaluates.
      step: of the checkpoint; None for the newest.
      state: looks at this state instead of a checkpoint.

    Returns:
      the direction, and N paths of S codes with E[x|z] along them; `.figure()` draws them.

    Raises:
      InputError: latents that are indices into a codebook, data without labels or such a factor, a value that no
        example has, an argument out of range.
    """
    run, learn = given.walkable(run), given.at_least("learn", learn)
    n = None if n is None else given.at_least("n", n)
    steps, strength = given.at_least("steps", steps, 2), conform(strength, float, "strength", 1.0)
    check_values(from_, to, strength)
    split = given.shown_split(run, split)
    state = given.restored(run, step, state)
    known = encode_all(run.model, state, run.batches("train", min(500, learn), learn))
    values = _values(run, known.extra, factor, from_)
    for name, value in (("from_", from_), ("to", to)):
        if value not in values:
            raise _absent(name, value, values, run.source("train").size)
    direction = latents.attribute(known.mean, values, from_, to)
    if not np.isfinite(direction).all():
        raise InputError(f"{run.path}: its codes are not finite; lower the learning rate")
    batch = given.chosen(run, split, _rows(run, split, factor, from_, n))
    codes = encode_all(run.model, state, [batch])
    shares = np.linspace(0.0, strength, steps)
    with np.errstate(over="ignore", invalid="ignore"):  # codes beyond float32 are refused by decode_all
        z = codes.mean[:, None] + shares[:, None] * direction
    cond = None if codes.cond is None else codes.cond[:, None]
    images = decode_all(run.model, state, z, cond=cond, scaled_by=("strength", strength))
    what = "label" if factor is None else factor
    title = f"{given.title(run, state)}: {what} {from_} to {to} by mean codes, {split} split"
    units = run.spec.units
    x, images = users(np.asarray(batch["x"]), units), users(images, units)
    note = given.few(len(x), USUAL, f"examples of the {split} split with {what} {from_}") if n is None else ""
    return Moves(codes.index, direction, shares, z, images, x, title, units, note)


def check_values(from_: int, to: int, strength: float) -> None:
    """Raises InputError for two equal values, or a strength that is no number."""
    conform(from_, int, "from_", 0)
    conform(to, int, "to", 1)
    if not abs(strength) < float("inf"):
        raise InputError(f"{option('strength')}: {strength} is out of range; it must be a finite number")
    if from_ == to:
        raise InputError(f"{option('to')}: {to} is where {_named('from_')} starts; choose two values")


def _rows(run: Run, split: str, factor: str | None, value: int, n: int | None) -> list[int]:
    """Returns the first n examples of a split that have the value; for None as many as usual, or all of fewer."""
    rows: list[int] = []
    most = USUAL if n is None else n
    for shown in run.batches(split, 500):
        rows += np.asarray(shown["index"])[_values(run, shown, factor, value) == value].tolist()
        if len(rows) >= most:
            return rows[:most]
    if rows and n is None:
        return rows
    if n is None:
        raise InputError(
            f"{_named('from_')}: {value}: no example of the {split} split has it; choose another value, or another "
            f"{option('split')}"
        )
    fix = f"use {option('n', len(rows))}" if rows else f"choose another value, or another {option('split')}"
    raise InputError(
        f"{option('n')}: {n} is out of range; only {len(rows)} examples of the {split} split have {value}; {fix}"
    )


def _absent(name: str, value: int, values: np.ndarray, size: int) -> InputError:
    """Returns the error for a value that none of the examples `values` [N] has, of a training split of `size`."""
    there = ", ".join(str(value) for value in np.unique(values) if value != _UNKNOWN)
    if len(values) < size:
        return InputError(
            f"{_named(name)}: {value}: none of the {len(values):,} training examples that were read has it; choose of "
            f"{there}, or read all with {option('learn', size)}"
        )
    return InputError(f"{_named(name)}: {value}: no training example has it; choose of {there}")


def _named(name: str) -> str:
    return option(name, flag=name.rstrip("_"))


def _known(label: np.ndarray) -> np.ndarray:
    """Returns labels int64 [N] of which no number names those that are unknown (-1)."""
    return np.where(label < 0, _UNKNOWN, label.astype(np.int64))


def _values(run: Run, batch: Mapping[str, Any], factor: str | None, from_: int) -> np.ndarray:
    """Returns the labels, or the values of the factor, int [N].

    Raises:
      InputError: the data have no labels, or no such factor.
    """
    info = run.source("train").info
    if factor is None:
        if "label" not in batch:
            fix = f"name one of its factors with {option('factor')} ({', '.join(info.factor_names)})"
            raise InputError(
                f"{_named('from_')}: {from_}: the data set {info.name!r} has no labels"
                + (f"; {fix}" if info.factor_names else " and no factors")
            )
        return _known(np.asarray(batch["label"]))
    if factor not in info.factor_names:
        raise InputError(
            f"{option('factor')}: {factor}: the data set {info.name!r} has "
            + (f"none such; {nearest(factor, info.factor_names)}" if info.factor_names else "no factors")
        )
    return np.asarray(batch["factors"])[:, info.factor_names.index(factor)]
