"""Examples of the user's own, or of another data set, as a run's model takes them."""

from __future__ import annotations

import dataclasses
import functools
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vae_jax import data
from vae_jax.data import (
    DATASETS,
    SPLITS,
    DataConfig,
    Source,
    chosen,
    classes,
    folder,
    memory,
    npz,
    prepared,
    series,
    unlabeled,
    vectors,
    whole,
)
from vae_jax.data.config import OF_ARRAYS, OF_PICTURES
from vae_jax.data.folder_files import Mixed
from vae_jax.data.layout import split_folders
from vae_jax.data.pictures import SUFFIXES
from vae_jax.errors import InputError, choice, nearest, note, option, shown
from vae_jax.runs import tables
from vae_jax.runs.examples import check_kind, describe, words
from vae_jax.runs.kinds import kind
from vae_jax.runs.run import Run, data_range

_ARRAYS = (".npy", ".npz")


def user_batches(
    run: Run,
    given: Any,
    split: str,
    batch_size: int = 500,
    name: str = "x",
    *,
    asked: bool = False,
    limit: int = 0,
) -> tuple[Iterator[dict[str, Any]], Source]:
    """Returns batches of the user's examples, checked against the run.

    Args:
      run: the model's run; its pixels' treatment (binarization) is applied to the examples as well.
      given: arrays in memory (`data.memory.named`), .npy, .npz, an image or a folder of them, a data set name, or a
        list of image files, which are read in its order. Images are brought to the run's size as its own `data.fit`
        says.
      split: which split of a data set, or of what holds splits itself; others are taken whole.
      batch_size: examples at a time.
      name: of the argument that they were given by, "x" or "outliers", for messages.
      asked: the user named the split, so examples that hold no splits are refused.
      limit: only so many examples, those of `data.limit.rows`; 0 for all.

    Returns:
      batches as `evaluate` takes them, with `x` and `index`, which `tell` before the first, and the source that they
      come from.

    Raises:
      InputError: no such thing, unreadable, or examples that this model cannot take (what was seen is named).
    """
    from vae_jax.data.pipeline import eval_batches

    given = _one(given)
    what = _what(given, name)
    first = given[0] if _is_several(given) else given
    if isinstance(first, str | Path):
        check_kind(run, Path(first).expanduser(), what)
    if run.spec.columns:
        if _is_several(given):
            raise InputError(f"{what}: a run of a table takes one table at a time; give one")
        return tables.batches(run, given, batch_size, what, asked=split if asked else "", limit=limit)
    config, source = _load(run, given, split, name, what, asked)
    if name == "x" or set(source.info.label_names) <= set(run.spec.label_names):
        # Outliers are other things than the run knows, on purpose: then their classes are their own.
        source = classes.match(source, run.spec.label_names, what)
    seen, wanted = tuple(source.info.shape), run.spec.x.shape
    kinds = source.info.kind, run.spec.x.kind
    if seen != wanted and kinds == ("image", "image"):
        arrays = _is_arrays(given) or (not _is_several(given) and Path(given).suffix.lower() in _ARRAYS)
        raise InputError(
            f"{what}: images are {describe(seen)}, but {run.path} was trained on {describe(wanted)}; "
            f"{_fix(seen, wanted, arrays)}"
        )
    if seen != wanted or kinds[0] != kinds[1]:
        raise InputError(
            f"{what}: holds {words(seen, kinds[0])}, but {run.path} was trained on {words(wanted, kinds[1])}; "
            "give such examples"
        )
    if source.info.mask and not run.model.about.takes_mask:
        raise InputError(
            f"{what}: they have missing values (NaN, or an array mask), which the model of {run.path} does not take; "
            "give examples of which everything is observed"
        )
    _check_numbers(run, source, what)
    _check_known(run, source, what)
    return _told(source, eval_batches(source, config, batch_size, limit=limit)), source


def _told(source: Source, batches: Iterator[Any]) -> Iterator[Any]:
    """Yields the batches; what is worth telling comes before the first, when a command refuses them no more."""
    tell(source)
    yield from batches


def tell(source: Source) -> None:
    """Writes on stderr what the user should know about examples that were read."""
    for text in source.info.notes:
        note(f"note: {text}")


def file_names(source: Source) -> tuple[str, ...]:
    """Returns the file of each example, relative to the folder that was given; () where examples have no files."""
    root = Path(source.info.where)
    # One image alone is its own root.
    return tuple(path.name if path == root else os.path.relpath(path, root) for path in source.paths)


def class_name(names: Sequence[str], label: int) -> str:
    """Returns the name of a class: its number where classes have no names."""
    return names[label] if 0 <= label < len(names) else str(label)


def shown_input(given: Any) -> str:
    """Returns examples of the user's own as a line names them."""
    given = _one(given)
    if _is_arrays(given):
        return "arrays"
    return f"{len(given)} images" if _is_several(given) else shown(given)


def _one(given: Any) -> Any:
    """Returns the one path of a list that holds one; several paths as a tuple; all else as it is."""
    if not isinstance(given, list | tuple) or not given or not all(isinstance(g, str | os.PathLike) for g in given):
        return given
    return given[0] if len(given) == 1 else tuple(Path(g).expanduser() for g in given)


def _is_several(given: Any) -> bool:
    return isinstance(given, tuple) and bool(given) and all(isinstance(path, Path) for path in given)


def _is_arrays(given: Any) -> bool:
    return memory.is_arrays(given) and not _is_several(given)


def _what(given: Any, name: str) -> str:
    """Returns the argument and its value as messages begin with them."""
    word = _typed(name)
    if _is_several(given):
        return f"{word} {shown(given[0])} and {len(given) - 1} more"
    return f"{word} {shown(given)}" if isinstance(given, str | Path) else word


def _typed(name: str, *value: str) -> str:
    return option(name, *value, flag="input" if name == "x" else None)


def _load(run: Run, given: Any, split: str, name: str, what: str, asked: bool) -> tuple[DataConfig, Source]:
    """Returns how the user's examples were read, and the examples."""
    if _is_arrays(given):
        return _in_memory(run, given, split, name, asked)
    if _is_several(given):
        return _several(run, given, name, what, asked, split)
    given = str(given)
    config, parts = _data_config(run, given, what, name)
    if asked and not parts:
        raise InputError(f"{option('split', split)}: is not used, for {given} holds no splits; leave it out")
    # Protocol `full` has all images in the training split.
    part = _part(parts, split, what, name, asked) if parts else "train"
    of_series = functools.partial(series.load, units=run.spec.units)
    readers = {"npz": npz.load, "series": of_series, "vectors": vectors.load, "image_folder": folder.load}
    load = readers.get(config.name)
    own = given in (run.config.data.name, run.config.data.shown)
    if own or (config.source and prepared.is_prepared(Path(config.source))):
        load = None
    try:
        # A few images for a trained model may be dark, or all black; a data set to train on is not.
        return config, data.load(config, part) if load is None else load(config, part, strict=False)
    except Mixed as error:
        raise _mixed(run, what, error) from None


def _mixed(run: Run, what: str, error: Mixed) -> InputError:
    """Returns the error for images of several numbers of channels, with what somebody with a trained run can do."""
    shape, kind = run.spec.x.shape, run.spec.x.kind
    if kind != "image":
        return InputError(f"{what}: holds images, but {run.path} was trained on {words(shape, kind)}; give such")
    kind = "gray" if shape[2:] == (1,) else "RGB"
    return InputError(
        f"{what}: {error.wrong.partition(': ')[2]}, but {run.path} was trained on {describe(shape)}; convert all "
        f"to {kind}"
    )


def _several(
    run: Run, given: Sequence[Path], name: str, what: str, asked: bool, split: str
) -> tuple[DataConfig, Source]:
    """Returns `_load` of image files that are named one by one."""
    for path in given:
        if path.suffix.lower() in SUFFIXES and path.is_file():
            continue
        wrong = "is no image" if path.exists() else "no such file"
        raise InputError(
            f"{_typed(name)} {shown(path)}: {wrong}; of several inputs each must be an image "
            f"({', '.join(SUFFIXES)}), or give one folder, .npy or .npz alone"
        )
    if asked:
        raise InputError(f"{option('split', split)}: is not used, for single images hold no splits; leave it out")
    config = _pictures(run, given[0], _whole(run))
    try:
        return config, chosen.load(given, config)
    except Mixed as error:
        raise _mixed(run, what, error) from None


def _in_memory(run: Run, given: Any, split: str, name: str, asked: bool) -> tuple[DataConfig, Source]:
    """Returns `_load` of arrays in memory."""
    held = memory.named(given, name, _array(run))
    for key, value in held.items():
        # Pictures that are not square are doubted in a file; here the shape of the run says what they are.
        if key.endswith("images") and value.shape[1:] == run.spec.x.shape[:2] and run.spec.x.shape[2:] == (1,):
            held[key] = value[..., None]
    parts = tuple(part for part in SPLITS if f"{part}_images" in held)
    if asked and not parts:
        raise InputError(f"{option('split', split)}: is not used, for {name} holds no splits; leave it out")
    part = _part(parts, split, name, name, asked) if parts else "train"
    config = dataclasses.replace(_arrays(run), source=None, protocol="standard" if parts else "full")
    if config.name == "series":
        return config, series.source(held, config, part, name, run.spec.units)
    if config.name == "vectors":
        return config, vectors.source(held, config, part, name)
    found = npz.parts(held, name, config.protocol, strict=False, config=config)
    return config, npz.source(found, config, part, name, strict=False)


def _whole(run: Run) -> DataConfig:
    """Returns the options of a run's data for examples that are taken whole.

    One example is enough, so no training batch size applies; and a model that was trained with some labels looks at
    examples without any.
    """
    own = run.config.data
    options: dict[str, Any] = {"batch_size": 1, "limit": None, "labels": None, "pipeline": "auto", "workers": 0}
    options |= {"protocol": "full", "splits": None, "groups": None, "stratify": False}
    options |= {"balance": "none", "class_weights": "none"}
    return dataclasses.replace(own, **options, **OF_PICTURES, **OF_ARRAYS)


def _arrays(run: Run) -> DataConfig:
    """Returns the options of examples in an array: numbers on the range of the run's own."""
    units = run.spec.units
    if run.spec.x.kind in ("sequence", "vector"):
        return dataclasses.replace(_whole(run), name="series" if run.spec.x.kind == "sequence" else "vectors")
    return dataclasses.replace(_whole(run), name="npz", range="auto" if units is None else units.range)


def _check_numbers(run: Run, source: Source, what: str) -> None:
    """Checks that the model's likelihood can score the numbers; pictures are brought to its range as they are read."""
    if run.spec.x.kind != "vector":
        return
    likelihood = run.model.about.likelihood
    if likelihood.counts:
        whole.check(source, kind("model.likelihood", likelihood), what)
        return
    (low, high), seen = likelihood.support, data_range(source)
    if seen[0] < low or seen[1] > high:
        raise InputError(
            f"{what}: values from {seen[0]:.4g} to {seen[1]:.4g}, but the model of {run.path} takes [{low:g}, "
            f"{high:g}]; rescale them as its training data were"
        )


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
    if on == "label" and run.model.condition.is_required:
        fix = "give the examples whose label is known"
        unlabeled.refuse(info, f"{what}: {run.path} is conditioned on the label of every example", fix)
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
            f"{what}: {run.path} is conditioned on {name} {width}, which these examples come without; save an "
            f".npz with the arrays {_array(run)} and {name}"
        )


def _array(run: Run) -> str:
    """Returns a name by which an .npz holds examples such as a run was trained on."""
    return {"image": "images", "vector": "vectors"}.get(run.spec.x.kind, "series")


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
    kind = "gray" if needed == 1 else "RGB" if needed == 3 else f"{needed} channels"
    return f"convert them to {kind}" + (f", e.g. {line}" if arrays and line else "")


def _data_config(run: Run, given: str, what: str, name: str) -> tuple[DataConfig, tuple[str, ...]]:
    """Returns how to load a path or name, and the splits that it holds: () for what is taken whole."""
    path, own = Path(given).expanduser(), run.config.data
    whole = _whole(run)
    if path.is_file():
        if path.suffix.lower() in SUFFIXES:
            return _pictures(run, path, whole), ()
        if path.suffix.lower() not in _ARRAYS:
            raise InputError(f"{what}: neither .npy nor .npz, nor an image or a folder of images; convert it")
        config, parts = dataclasses.replace(_arrays(run), source=str(path)), _parts(path)
    elif path.is_dir() and prepared.is_prepared(path):
        config, parts = _prepared(whole, path, what, name)
    elif path.is_dir():
        config = _pictures(run, path, whole)
        parts = tuple(split_folders(path)[0])
    else:
        # What reads the user's files has no examples of its own.
        named = {n for n, entry in DATASETS.items() if not entry.reads_files} | {own.shown}
        if given not in named:
            raise InputError(f"{what}: no such file, folder or data set; {nearest(given, named)}")
        if given in (own.name, own.shown):
            return dataclasses.replace(own, batch_size=1, limit=None, labels=None), SPLITS
        size, parts = run.spec.x.shape[0] if DATASETS[given].resizable else None, SPLITS
        config = dataclasses.replace(whole, name=given, source=None, image_size=size)
    return (dataclasses.replace(config, protocol="standard") if parts else config), parts


def _pictures(run: Run, path: Path, whole: DataConfig) -> DataConfig:
    """Returns how to load images: converted as the run's own were, and always to the size of those."""
    own = {name: getattr(run.config.data, name) for name in OF_PICTURES}
    own["image_size"] = run.spec.x.shape[:2] if run.spec.x.kind == "image" else None
    return dataclasses.replace(whole, name="image_folder", source=str(path), **own)


def _prepared(whole: DataConfig, path: Path, what: str, argument: str) -> tuple[DataConfig, tuple[str, ...]]:
    """Returns `_data_config` of a folder that `vae-jax data prepare` wrote."""
    name = prepared.stored_name(path).removeprefix(prepared.PREFIX)
    if DATASETS[name].made:
        raise InputError(
            f"{what}: holds {name!r}, which is {DATASETS[name].made} and read from no folder; use "
            f"{_typed(argument, name)}"
        )
    own = name in ("npz", "image_folder")
    config = dataclasses.replace(whole, name=name, source=str(path))
    return config, tuple(prepared.metadata(path)["sizes"]) if own else SPLITS


def _part(parts: Sequence[str], split: str, what: str, name: str, asked: bool) -> str:
    """Returns the split to take: the requested one, or the only one that there is.

    Raises:
      InputError: it is not among `parts`.
    """
    if split in parts:
        return split
    if split not in SPLITS:
        raise InputError(f"{option('split', split)}: unknown split; {nearest(split, parts)}")
    if len(parts) == 1 and not asked:
        return parts[0]
    there = " and ".join(parts)
    if name == "x":
        fix = f"use {choice('split', reversed(parts))}"
    else:  # there the split is also that of what is compared with
        fix = "save the images to take as an .npz with the one array images"
    raise InputError(f"{what}: holds no {split} examples, only {there}; {fix}")


def _parts(path: Path) -> tuple[str, ...]:
    """Returns the splits that an .npz holds: test for an array test_images. Unreadable files are left to the reader."""
    if path.suffix.lower() != ".npz" or not zipfile.is_zipfile(path):
        return ()
    try:
        with zipfile.ZipFile(path) as stored:
            names = stored.namelist()
            return tuple(part for part in SPLITS if f"{part}_images.npy" in names)
    except (OSError, zipfile.BadZipFile, NotImplementedError):
        return ()
