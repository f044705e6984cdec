"""The data of a run: what its model knows of them, and whether they are still of the form that it was trained on.

People change data after training. It is said in one line that names the change, before a model is built that no
checkpoint fits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vae_jax import data
from vae_jax.data import DataConfig, Source
from vae_jax.data.fingerprint import fingerprint
from vae_jax.data.source import SPLITS
from vae_jax.errors import InputError
from vae_jax.model import NO_FACTS, Facts


class TrainedOn(NamedTuple):
    """The data that a model was made for: image shape (H, W, C), what else it knows of them, and their hash."""

    image_shape: tuple[int, int, int]
    facts: Facts
    data_sha256: str | None = None


def facts_of(source: Source) -> Facts:
    """Returns what a model may know of the training data, from any of its splits."""
    info = source.info
    sizes = int(info.sizes["train"]), info.num_classes or 0, tuple(info.factor_sizes), info.cond_size
    return Facts(*sizes, label_names=tuple(info.label_names))


def load(where: Path, options: DataConfig, trained: TrainedOn, split: str) -> Source:
    """Returns one split of the data of a run, as long as they are still of the form that its model was made for.

    Args:
      where: the run folder, for messages.
      options: of its data.
      trained: the form of the data that it was trained on.
      split: "train", "validation" or "test".

    Raises:
      InputError: they cannot be read any more, have no such split, or have another form.
    """
    # The batch of training is no matter of those who look at a run, and its data may have become fewer than that.
    options = dataclasses.replace(options, batch_size=1)
    if data.DATASETS[options.name].made:
        options = dataclasses.replace(options, source=None)  # earlier versions kept one that nothing reads
    try:
        source = data.load(options, split)
    except InputError as error:
        raise _unreadable(where, options, split, error) from error
    # By name first: a class folder that is gone must not shift the numbers of the others.
    source = data.classes.match(source, trained.facts.label_names, options.name)
    check(where, trained, source)
    return source


def _unreadable(where: Path, options: DataConfig, split: str, error: InputError) -> InputError:
    """Returns the error in words of somebody who has a run and no options of data to change."""
    try:
        sizes = data.load(options, "train").info.sizes
    except InputError as reason:
        return InputError(f"{where}: its data cannot be loaded as they were in training; restore them ({reason})")
    if split in SPLITS and split not in sizes:
        # The held-out ones first.
        there = [name for name in reversed(SPLITS) if name in sizes]
        return InputError(f"--split {split}: the data of {where} have no such split; use --split {' or '.join(there)}")
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
    known, seen = trained.facts, facts_of(source)
    if not known.examples:  # of before facts were kept: the model knows none
        known, seen = NO_FACTS, NO_FACTS
    then, now = _form(trained.image_shape, known), _form(source.info.image_shape, seen)
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
    then, now = trained.facts.examples, source.info.sizes["train"]
    said = [f"{now:,} training examples, {then:,} when the run was trained"] if then and then != now else []
    old = trained.data_sha256
    if old is not None and (new := fingerprint(source)) != old:
        said += [f"other training data than the run was trained on (SHA-256 {new[:12]} now, {old[:12]} then)"]
    return "; ".join(said) or None


def check_held_out(where: Path, changed: str | None, source: Source) -> None:
    """Checks that changed data have no training examples in a split that is held out.

    Protocol `random-tenth` splits by row number. With another number or order of rows, examples that the run was
    trained on are in the test split. By content hash none ever moves there.

    Args:
      where: the run folder, for messages.
      changed: what changed in the data, of `change`.
      source: the split to be measured.

    Raises:
      InputError: it is held out, its data changed, and it was drawn by row number.
    """
    info = source.info
    if changed is None or source.split == "train" or info.protocol != "random-tenth":
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


def _form(shape: Sequence[int], facts: Facts) -> str:
    """Returns "8x8x1 images with 10 classes"."""
    parts = [f"{facts.classes} classes"] if facts.classes else []
    parts += [f"factors of {', '.join(map(str, facts.factors))} values"] if facts.factors else []
    parts += [f"conditions of {facts.cond} numbers"] if facts.cond else []
    return f"{'x'.join(map(str, shape))} images" + (f" with {' and '.join(parts)}" if parts else "")
