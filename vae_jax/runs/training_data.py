"""The data of a run: what its model knows of them, and whether they are still of the form that it was trained on.

People change data after training. It is said in one line that names the change, before a model is built that no
checkpoint fits.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from vae_jax import data
from vae_jax.data import DataConfig, Source, series
from vae_jax.data.fingerprint import fingerprint
from vae_jax.data.source import SPLITS
from vae_jax.errors import InputError, choice, option
from vae_jax.spec import ArraySpec, DataSpec


class DataGone(InputError):
    """The data of a run cannot be read any more, whatever split is wanted."""


class TrainedOn(NamedTuple):
    """The data that a model was made for, and their hash."""

    spec: DataSpec
    data_sha256: str | None = None


def spec_of(source: Source) -> DataSpec:
    """Returns what a model may know of the training data, from any of its splits."""
    info = source.info
    return DataSpec(
        ArraySpec(tuple(info.shape), info.kind, "int32" if info.kind == "tokens" else "float32"),
        examples=int(info.sizes["train"]),
        classes=info.num_classes or 0,
        factors=tuple(info.factor_sizes),
        mask=info.mask,
        cond=info.cond_size,
        label_names=tuple(info.label_names),
        units=info.units,
        columns=tuple(info.columns),
    )


def load(where: Path, options: DataConfig, trained: TrainedOn, split: str) -> Source:
    """Returns one split of the data of a run, as long as they are still of the form that its model was made for.

    Args:
      where: the run folder, for messages.
      options: of its data.
      trained: the form of the data that it was trained on.
      split: "train", "validation" or "test".

    Returns:
      the split, unshuffled; its batch size is 1.

    Raises:
      InputError: they cannot be read any more, have no such split, or have another form.
    """
    # The batch of training is no matter of those who look at a run, and its data may have become fewer than that.
    options = dataclasses.replace(options, batch_size=1)
    if data.entry(options.name).made:
        options = dataclasses.replace(options, source=None)  # earlier versions kept one that nothing reads
    try:
        source = data.load(options, split, _reader(options, trained))
    except InputError as error:
        raise _unreadable(where, options, split, error) from error
    # By name first: a class folder that is gone must not shift the numbers of the others.
    source = data.classes.match(source, trained.spec.label_names, options.shown)
    check(where, trained, source)
    return source


def _reader(options: DataConfig, trained: TrainedOn) -> Callable[[DataConfig, str], Source] | None:
    """Returns what reads data by the means, deviations and levels of training; None where it has none.

    With more rows than then, those of the data as they are now would be others.
    """
    if options.name == "series":
        return functools.partial(series.load, units=trained.spec.units)
    if not trained.spec.columns or options.name not in data.TABLES:
        return None
    load: Any = data.entry(options.name).load
    return functools.partial(load, columns=trained.spec.columns)


def _unreadable(where: Path, options: DataConfig, split: str, error: InputError) -> InputError:
    """Returns the error in words of somebody who has a run and no options of data to change."""
    try:
        sizes = data.load(options, "train").info.sizes
    except InputError as reason:
        return DataGone(f"{where}: its data cannot be loaded as they were in training; restore them ({reason})")
    if split in SPLITS and split not in sizes:
        # The held-out ones first.
        there = [name for name in reversed(SPLITS) if name in sizes]
        fix = f"use {choice('split', there)}"
        return InputError(f"{option('split', split)}: the data of {where} have no such split; {fix}")
    return error


def check(where: Path, trained: TrainedOn, source: Source) -> None:
    """Checks that a run's data are still of the form that its model was made for.

    More or fewer examples of that form can be measured: `change` puts it into words for the protocol.

    Args:
      where: the run folder, for messages.
      trained: the form of the data that it was trained on.
      source: any split of its data, as they are now.

    Raises:
      InputError: images of another shape, other classes, factors or conditions.
    """
    known, seen = trained.spec, spec_of(source)
    if not known.examples:  # of before facts were kept: the model knows the shape alone
        known, seen = DataSpec(known.x), DataSpec(seen.x)
    then, now = _form(known), _form(seen)
    if then != now:
        raise InputError(
            f"{where}: was trained on {then}, but the data ({source.info.where}) are now {now}; restore those data, "
            "or train again on these"
        )


def change(trained: TrainedOn, source: Source) -> str | None:
    """Returns what changed in the training data since training, None if nothing did or nothing is known.

    Args:
      trained: the data that the run was trained on.
      source: the training split as it is now; any split for a run without a hash.
    """
    then, now = trained.spec.examples, source.info.sizes["train"]
    said = [f"{now:,} training examples, {then:,} when the run was trained"] if then and then != now else []
    old = trained.data_sha256
    if old is not None and (new := fingerprint(source)) != old:
        said += [f"other training data than the run was trained on (SHA-256 {new[:12]} now, {old[:12]} then)"]
    return "; ".join(said) or None


def check_held_out(where: Path, changed: str | None, source: Source) -> None:
    """Checks that changed data have no training examples in a split that is held out.

    Protocol `random-tenth` splits by row number, and so may a file of splits. With another number or order of rows,
    examples that the run was trained on are in the test split. By content hash none ever moves there.

    Args:
      where: the run folder, for messages.
      changed: what changed in the data, of `change`.
      source: the split to be measured.

    Raises:
      InputError: it is held out, its data changed, and it was drawn by row number.
    """
    info = source.info
    if changed is None or source.split == "train":
        return
    if source.division is not None and source.division.moves and info.protocol != "random-tenth":
        raise InputError(
            f"{where}: its data ({info.where}) changed since training ({changed}), and {source.division.moves}, so "
            f"that training examples may now be in the {source.split} split; restore those data, or train again on "
            "these"
        )
    if info.protocol != "random-tenth":
        return
    # Data with splits of their own carry the name of the protocol, but are not drawn by it.
    test = info.sizes.get("test", 0)
    # The split was drawn before `data.limit` cut the training examples.
    rows = test + (info.sizes["train"] if info.unlimited is None else info.unlimited)
    if "validation" not in info.sizes and test == max(1, rows // 10):
        raise InputError(
            f"{where}: its data ({info.where}) changed since training ({changed}), and protocol random-tenth splits "
            f"them by row number, so that training examples may now be in the {source.split} split; restore those "
            "data, or train again on these"
        )


def _form(spec: DataSpec) -> str:
    """Returns "8x8x1 images with 10 classes"."""
    parts = [f"{spec.classes} classes"] if spec.classes else []
    parts += [f"factors of {', '.join(map(str, spec.factors))} values"] if spec.factors else []
    parts += [f"conditions of {spec.cond} numbers"] if spec.cond else []
    parts += ["missing values"] if spec.mask else []
    plural = {"tokens": "rows of tokens"}.get(spec.x.kind, f"{spec.x.kind}s")
    # The mean and deviation of a series change with each example; the ends of a range are what the numbers mean.
    if spec.units is not None and spec.x.kind == "image":
        plural += " on the range {:g} to {:g}".format(*spec.units.range)
    return f"{'x'.join(map(str, spec.x.shape))} {plural}" + (f" with {' and '.join(parts)}" if parts else "")
