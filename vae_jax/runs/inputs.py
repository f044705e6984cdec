"""Images of a user's own, or of another data set, as a run's model takes them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_jax.errors import InputError, nearest

if TYPE_CHECKING:
    from vae_jax.data import DataConfig, Source
    from vae_jax.runs.run import Run


def user_batches(
    run: Run,
    given: str,
    split: str,
    batch_size: int = 500,
    option: str = "--input",
    *,
    asked: bool = False,
    limit: int = 0,
) -> tuple[Iterator[dict[str, Any]], Source]:
    """Returns batches of the images in a file, a folder or a named data set, checked against the run.

    Args:
      run: the model's run; its pixels' treatment (binarisation) is applied to the images as well.
      given: .npy, .npz, a folder of images, or a data set name.
      split: which split of a data set, or of a file or folder that holds splits; others are taken whole.
      batch_size: images at a time.
      option: that named them, for messages.
      asked: the user named the split, so images that hold no splits are refused.
      limit: only so many images, those of `data.limit.rows`; 0 for all.

    Raises:
      InputError: no such thing, unreadable, or images that this model cannot take (what was seen is named).
    """
    from vae_jax import data
    from vae_jax.data import folder, npz, prepared
    from vae_jax.data.folder import MixedSizes
    from vae_jax.data.pipeline import eval_batches

    config, parts = _data_config(run, given, option)
    if asked and not parts:
        raise InputError(f"--split {split}: is not used, for {given} holds no splits; leave it out")
    # Protocol `full` has all images in the training split.
    part = _part(parts, split, given, option, asked) if parts else "train"
    load = {"npz": npz.load, "image_folder": folder.load}.get(config.name)
    if given == run.config.data.name or (config.source and prepared.is_prepared(Path(config.source))):
        load = None
    try:
        # A few images for a trained model may be dark, or all black; a data set to train on is not.
        source = data.load(config, part) if load is None else load(config, part, strict=False)
    except MixedSizes:
        size = "x".join(map(str, run.spec.x.shape[:2]))
        raise InputError(
            f"{option} {given}: the images are not of one size, but {run.path} was trained on {size}; "
            f"resize them to {size}"
        ) from None
    source = _numbered(run, source, given, option)
    for note in source.info.notes:
        print(f"note: {note}", file=sys.stderr)
    seen, wanted = source.info.shape, run.spec.x.shape
    if tuple(seen) != wanted:
        raise InputError(
            f"{option} {given}: images are {describe(seen)}, but {run.path} was trained on {describe(wanted)}; "
            f"{_fix(seen, wanted, Path(given).expanduser().is_file())}"
        )
    _check_known(run, source, f"{option} {given}")
    return eval_batches(source, config, batch_size, limit=limit), source


def _check_known(run: Run, source: Source, what: str) -> None:
    """Checks what the model is conditioned on: a class that it never had would be no class to it, without a word."""
    if run.model.condition is None:
        return
    on, info, spec = run.model.condition.on, source.info, run.spec
    if on == "label" and (info.num_classes or 0) > spec.classes:
        raise InputError(
            f"{what}: labels go up to {(info.num_classes or 0) - 1}, but {run.path} was trained on classes 0 to "
            f"{spec.classes - 1}; number the classes as in its training data"
        )
    if on == "factors" and any(a > b for a, b in zip(info.factor_sizes, spec.factors)):
        raise InputError(
            f"{what}: factors have {info.factor_sizes} values, but {run.path} was trained on {spec.factors}; number "
            "them as in its training data"
        )
    name, lacks = {
        "label": ("labels", not info.num_classes),
        "factors": ("factors", len(info.factor_sizes) != len(spec.factors)),
        "cond": ("cond", info.cond_size != spec.cond),
    }[on]
    if lacks and run.model.condition.is_required:
        width = {"label": "[N]", "factors": f"[N, {len(spec.factors)}]", "cond": f"[N, {spec.cond}]"}[on]
        raise InputError(
            f"{what}: {run.path} is conditioned on {name} {width}, which these images come without; save an .npz with "
            f"the arrays images and {name}"
        )


def _numbered(run: Run, source: Source, given: str, option: str) -> Source:
    """Returns the source with the run's own class numbers."""
    from vae_jax.data import classes

    if option == "--outliers" and not set(source.info.label_names) <= set(run.spec.label_names):
        return source  # other things than the run knows, on purpose: their classes are their own
    return classes.match(source, run.spec.label_names, f"{option} {given}")


def describe(shape: Sequence[int]) -> str:
    """Returns "28x28 with 1 channel"."""
    height, width, channels = shape
    return f"{height}x{width} with {channels} channel{'s' if channels > 1 else ''}"


def _fix(seen: Sequence[int], wanted: Sequence[int], arrays: bool) -> str:
    """Returns what to do to the images; `arrays` adds the line of numpy, where they are in a file of arrays."""
    (h, w, channels), (height, width, needed) = seen, wanted
    if (h, w) != (height, width):
        size = f"(len(images), {height}, {width}, *images.shape[3:])"
        line = f"jax.image.resize(images, {size}, 'linear').clip(0, images.max()).astype(images.dtype)"
        return f"resize them to {height}x{width}" + (f", e.g. {line}" if arrays else "")
    line = f"images[..., :{needed}]" if needed < channels else ""
    if needed == 1:
        line = "images.mean(-1, keepdims=True).astype(images.dtype)"
    elif channels == 1:
        line = f"images.reshape(-1, {h}, {w}, 1).repeat({needed}, -1)"
    kind = "grey" if needed == 1 else "RGB" if needed == 3 else f"{needed} channels"
    return f"convert them to {kind}" + (f", e.g. {line}" if arrays and line else "")


def _data_config(run: Run, given: str, option: str) -> tuple[DataConfig, tuple[str, ...]]:
    """Returns how to load `given`, and the splits that it holds: () for what is taken whole."""
    from vae_jax.data import DATASETS, SPLITS, prepared
    from vae_jax.data.layout import split_folders

    path, own = Path(given).expanduser(), run.config.data
    # One image is enough, so no training batch size applies here.
    # Labels are not needed either: a model that was trained with some looks at images without any.
    whole = dataclasses.replace(own, batch_size=1, limit=None, labels=None, protocol="full", pipeline="auto", workers=0)
    if path.is_file():
        if path.suffix.lower() not in (".npy", ".npz"):
            raise InputError(f"{option} {given}: neither .npy nor .npz, nor a folder of images; convert it")
        config, parts = dataclasses.replace(whole, name="npz", source=str(path), image_size=None), _parts(path)
    elif path.is_dir() and prepared.is_prepared(path):
        config, parts = _prepared(whole, path, option)
    elif path.is_dir():
        size = own.image_size if own.name == "image_folder" else None
        config = dataclasses.replace(whole, name="image_folder", source=str(path), image_size=size)
        parts = tuple(split_folders(path)[0])
    else:
        named = {n for n in DATASETS if n not in ("npz", "image_folder")} | {own.name}
        if given not in named:
            raise InputError(f"{option} {given}: no such file, folder or data set; {nearest(given, named)}")
        if given == own.name:
            return dataclasses.replace(own, batch_size=1, limit=None, labels=None), SPLITS
        size, parts = run.spec.x.shape[0] if DATASETS[given].resizable else None, SPLITS
        config = dataclasses.replace(whole, name=given, source=None, image_size=size)
    return (dataclasses.replace(config, protocol="standard") if parts else config), parts


def _prepared(whole: DataConfig, path: Path, option: str) -> tuple[DataConfig, tuple[str, ...]]:
    """Returns `_data_config` of a folder that `vae-jax data prepare` wrote."""
    from vae_jax.data import DATASETS, SPLITS, prepared

    name = prepared.stored_name(path).removeprefix(prepared.PREFIX)
    if DATASETS[name].made:
        raise InputError(
            f"{option} {path}: holds {name!r}, which is {DATASETS[name].made} and read from no folder; use {option} "
            f"{name}"
        )
    own = name in ("npz", "image_folder")
    config = dataclasses.replace(whole, name=name, source=str(path), image_size=None)
    return config, tuple(prepared.metadata(path)["sizes"]) if own else SPLITS


def _part(parts: Sequence[str], split: str, given: str, option: str, asked: bool) -> str:
    """Returns the split to take: the requested one, or the only one that there is.

    Raises:
      InputError: it is not among `parts`.
    """
    from vae_jax.data import SPLITS

    if split in parts:
        return split
    if split not in SPLITS:
        raise InputError(f"--split {split}: unknown split; {nearest(split, parts)}")
    if len(parts) == 1 and not asked:
        return parts[0]
    there = " and ".join(parts)
    if option == "--input":
        fix = f"use --split {' or '.join(reversed(parts))}"
    else:  # there --split also names what is compared with
        fix = "save the images to take as an .npz with the one array images"
    raise InputError(f"{option} {given}: holds no {split} images, only {there}; {fix}")


def _parts(path: Path) -> tuple[str, ...]:
    """Returns the splits that an .npz holds: test for an array test_images. Unreadable files are left to the reader."""
    import zipfile

    from vae_jax.data import SPLITS

    if path.suffix.lower() != ".npz" or not zipfile.is_zipfile(path):
        return ()
    try:
        with zipfile.ZipFile(path) as stored:
            names = stored.namelist()
            return tuple(part for part in SPLITS if f"{part}_images.npy" in names)
    except (OSError, zipfile.BadZipFile, NotImplementedError):
        return ()
