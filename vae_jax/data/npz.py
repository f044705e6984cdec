"""The user's own arrays: .npz with `images` (and `labels`, `mask`, ...), or .npy with the images alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vae_jax.data import file_rows, ranges, unlabeled, values
from vae_jax.data import split as split_lib
from vae_jax.data.config import DataConfig
from vae_jax.data.limit import Rows
from vae_jax.data.source import DEVICE_BYTES, SPLITS, Info, Source, from_arrays, no_validation, not_in_memory
from vae_jax.errors import InputError, either, nearest, option
from vae_jax.files import bounded
from vae_jax.spec import Units

_KEYS = ("images", "labels", "factors", "cond", "mask")
# Names under which other programs save what is read here.
_USUAL = {
    "arr_0": "images",
    "x": "images",
    "data": "images",
    "imgs": "images",
    "image": "images",
    "y": "labels",
    "targets": "labels",
    "latents_classes": "factors",
    "x_train": "train_images",
    "y_train": "train_labels",
    "x_test": "test_images",
    "y_test": "test_labels",
    "x_val": "validation_images",
    "y_val": "validation_labels",
}


class Held(NamedTuple):
    """The checked arrays of a file.

    Attributes:
      splits: arrays by split and name: `image` [N, H, W, C], uint8 or float32 in [0, 1], and `label` [N], `factors`
        [N, F] and `cond` [N, F] where they are given, `mask` bool [N, H, W, C] where values are missing (`image` is 0
        there).
      units: what the numbers of the images were in the file; None where they are the same.
      notes: what the user should know of how images for a trained model were read.
    """

    splits: split_lib.Parts
    units: Units | None = None
    notes: tuple[str, ...] = ()


def load(config: DataConfig, split: str, *, strict: bool = True) -> Source:
    """Returns a split of the arrays in `config.source`.

    `images` [N, H, W, C], or [N, H, H] for square gray ones: bool, integers 0..255, or floats in [0, 1] (kept as
    float32) or on another range, which `data.range` maps to it; NaN where a value is missing. `mask` bool, of the shape
    of the images or [N, H, W] for whole pixels: True where they are observed; it is made of NaN where it is not given.
    `labels` integers [N]; `factors` integers [N, F]; `cond` floats [N, F], what a conditional model is given. A file
    may hold its own splits: `train_images`, `test_images`, `validation_images` and `train_labels` and so on; otherwise
    `protocol` says how it is split.

    An .npy of more than 1 GiB is not held in memory, whatever `max_bytes` says: its images are read row by row.

    Args:
      config: `source` names the file, `max_bytes` limits what is read into memory.
      split: "train", "validation" or "test".
      strict: False for images that a trained model looks at, which may be few and dark; see `values.images`.

    Raises:
      InputError: no such file, or arrays that cannot be read in one way only.
    """
    path = find(config.source)
    if (stored := file_rows.is_large(path, config.pipeline, DEVICE_BYTES)) is not None:
        return _by_rows(config, split, path, stored, strict)
    larger = either("--data.max-bytes {bytes}", '**{{"data.max_bytes": {bytes}}}')
    way = f"if it is yours, use {larger}" if strict else "give it in parts"
    held = read(path, config.protocol, config.max_bytes, way=way, strict=strict, config=config)
    return source(held, config, split, str(path), strict=strict)


def _by_rows(config: DataConfig, split: str, path: Path, stored: bounded.Stored, strict: bool) -> Source:
    """Returns `load` of an .npy that is read from the file while training."""
    hashed = config.protocol in split_lib.HASHED and config.splits is None
    looked = file_rows.look(path, stored, config.range, strict, hashed)
    records = looked.records
    split_lib.refuse_group_file(config, path)
    division = split_lib.divided(config, str(path), lambda: looked.hashes, len(records))
    if split not in division.rows:
        raise no_validation("npz", config.protocol, split_lib.validated(division))
    notes = (*looked.notes, *(() if records.units is None or not strict else (ranges.note(path, records.units),)))
    info = Info(
        "npz",
        records.shape,
        {part: len(chosen) for part, chosen in division.rows.items()},
        division.protocol,
        division.text,
        values="float" if _is_float(records) else "grey",
        where=str(path),
        mask=records.mask,
        units=records.units,
        notes=(*notes, *division.notes),
    )
    chosen = Rows(records, division.rows[split])
    found = Source(info, split, len(chosen), {}, not_in_memory, chosen, "grain")
    return dataclasses.replace(found, division=division)


def _is_float(records: file_rows.FileRecords) -> bool:
    return records.rows(np.arange(1))["image"].dtype == np.float32


def source(held: Held, config: DataConfig, split: str, where: str, *, strict: bool = True) -> Source:
    """Returns one split of the checked arrays that `parts` returned; `where` they come from is noted with them.

    Args:
      held: arrays by split, as of `parts`.
      config: of the data; `protocol` and `pipeline` are read.
      split: "train", "validation" or "test".
      where: file that the arrays come from, for messages and the run's record.
      strict: as in `load`; a trained model's range is no news.

    Returns:
      a source over the arrays, on the device or on the host as `pipeline` says.

    Raises:
      InputError: there is no such split.
    """
    if split not in held.splits:
        if split == "validation":
            raise no_validation("npz", config.protocol, split_lib.validated(held.splits))
        raise InputError(f"{where}: holds no array {split}_images; add it")
    info = describe("npz", held, config.protocol, where)
    if not strict:
        info = dataclasses.replace(info, notes=held.notes)
    found = from_arrays(info, split, held.splits[split], config.pipeline)
    return dataclasses.replace(found, division=split_lib.of(held.splits))


def find(source: str | None, name: str = "npz") -> Path:
    """Returns the file that `source` names for the data set `name`, or raises the line that says what is missing."""
    if source is None:
        raise InputError(f"data.source: {name!r} needs a file; name it with {option('data.source', 'FILE.npz')}")
    path = Path(source).expanduser()
    if not path.is_file():
        raise InputError(f"data.source: no file {source!r}; name an .npz or .npy file")
    if path.suffix.lower() not in (".npz", ".npy"):
        raise InputError(
            f"data.source: {source!r} is neither .npz nor .npy; save it with numpy.savez('data.npz', images=images)"
        )
    return path


def read(
    path: Path,
    protocol: str,
    limit: int = bounded.DEFAULT_BYTES,
    *,
    way: str = "",
    strict: bool = True,
    config: DataConfig | None = None,
) -> Held:
    """Returns the checked arrays of each split; `limit` and `way` as in `bounded.arrays`, `strict` as in `load`.

    Args:
      path: an .npz or .npy file.
      protocol: how arrays without splits of their own are split.
      limit: most bytes of all arrays together, uncompressed.
      way: what to do about a file that is larger, for the message.
      strict: as in `load`.
      config: with further options, as in `parts`.

    Returns:
      the arrays of each split, and the user's units.

    Raises:
      InputError: as `bounded.arrays` and `parts`.
    """
    stored = bounded.arrays(path, limit, fix=way)
    named = {name or "images": value for name, value in stored.items()}
    return parts(named, path, protocol, strict=strict, config=config)


def parts(
    stored: dict[str, np.ndarray],
    path: Path | str,
    protocol: str,
    *,
    strict: bool = True,
    config: DataConfig | None = None,
) -> Held:
    """Returns the checked arrays of each split, as `read` does of a file.

    Args:
      stored: the arrays by name.
      path: where they come from, for messages.
      protocol: how they are split, where they are not split already.
      strict: as in `load`.
      config: with further options: of how they are split (`splits`, `groups`, `stratify`), and `range`; None for the
        defaults.

    Returns:
      the arrays of each split, and the user's units.

    Raises:
      InputError: arrays that cannot be read in one way only.
    """
    own = any(f"{part}_images" in stored for part in SPLITS)
    known = [f"{part}_{key}" for part in SPLITS for key in _KEYS] if own else [*_KEYS, "groups"]
    needed = "train_images" if own else "images"
    # A trained model may look at a test set alone.
    if needed not in stored and (strict or not own):
        raise _missing(path, needed, stored, own)
    for name in stored:
        if name not in known:
            usual = _USUAL.get(name.lower())
            meant = f"did you mean {usual!r}?" if usual in known and usual not in stored else nearest(name, known)
            raise InputError(f"{path}: unknown array {name!r}; {meant} Remove or rename it")
    rules = dataclasses.replace(config or DataConfig("npz"), protocol=protocol)
    if own:
        split_lib.refuse_own(rules, f"{path}: has its own splits")
    split_lib.refuse_group_file(rules, path)
    groups = values.groups(stored["groups"], path) if "groups" in stored else None
    stored = {name: value for name, value in stored.items() if name != "groups"}
    prefixes = [f"{part}_" for part in SPLITS if f"{part}_images" in stored] if own else [""]
    whole, units, notes = _check(stored, path, prefixes, strict, rules.range)
    if own:
        splits = split_lib.Parts({prefix.removesuffix("_"): arrays for prefix, arrays in whole.items()})
        return Held(splits, units, notes)
    return Held(_divided(whole[""], rules, path, groups), units, notes)


def _divided(
    arrays: dict[str, np.ndarray], config: DataConfig, path: Path | str, groups: np.ndarray | None
) -> split_lib.Parts:
    """Returns the arrays of each split of a file without splits of its own."""
    count = len(arrays["image"])
    if groups is not None and len(groups) != count:
        raise InputError(f"{path}: {len(groups)} groups for {count} images; make them equal")
    division = split_lib.divided(
        config,
        str(path),
        lambda: split_lib.pixel_hashes(arrays["image"]),
        count,
        groups=groups,
        labels=arrays.get("label"),
    )
    found = split_lib.Parts(
        {part: {key: value[chosen] for key, value in arrays.items()} for part, chosen in division.rows.items()}
    )
    found.division = division
    return found


def _missing(path: Path | str, needed: str, stored: dict[str, np.ndarray], own: bool) -> InputError:
    names = ", ".join(sorted(stored))
    meant = {name: _USUAL[name.lower()] for name in stored if name.lower() in _USUAL}
    if not meant and not own:
        close = [name for name in stored if nearest(name.lower(), ["images"]).startswith("did you mean")]
        meant = {close[0]: "images"} if close else {}
    if needed not in meant.values() and "train_images" not in meant.values():
        ending = "; add it" if own else "; save it under that name"
        has = "has splits, but no array train_images" if own else "has no array 'images'"
        return InputError(f"{path}: {has} (has: {names or 'nothing'}){ending}")
    for old, new in meant.items():
        if (
            new in (needed, "train_images") and stored[old].ndim == 2 and stored[old].size
        ):  # renaming alone would lead to that line
            return values.table(stored[old].shape, path, old, f"{new}=")
    saved = ", ".join(f"{new}=stored[{old!r}]" for old, new in meant.items())
    return InputError(
        f"{path}: has no array {needed!r} (has: {names}); save it under that name: numpy.savez('data.npz', {saved})"
    )


def describe(name: str, held: Held, protocol: str, where: str) -> Info:
    """Returns the facts about checked arrays.

    Args:
      name: of the data set.
      held: arrays by split, as of `parts`.
      protocol: how they were split.
      where: file that they come from.

    Returns:
      facts of all splits together: classes and values of a factor are counted up to the largest one found in any split.
    """
    parts = held.splits
    first = parts["train"] if "train" in parts else next(iter(parts.values()))
    height, width, channels = first["image"].shape[1:]
    labels = [arrays["label"] for arrays in split_lib.apart(parts).values() if "label" in arrays]
    joined = np.concatenate(labels) if labels else np.zeros(0, np.int32)
    factors = [arrays["factors"] for arrays in parts.values() if "factors" in arrays]
    factor_sizes = tuple(int(n) + 1 for n in np.concatenate(factors).max(0)) if factors else ()
    return Info(
        name,
        (height, width, channels),
        {part: len(arrays["image"]) for part, arrays in parts.items()},
        *split_lib.words(parts, protocol),
        num_classes=int(joined.max()) + 1 if len(joined) else None,
        factor_names=tuple(f"factor_{i}" for i in range(len(factor_sizes))),
        factor_sizes=factor_sizes,
        cond_size=first["cond"].shape[1] if "cond" in first else 0,
        values="float" if first["image"].dtype == np.float32 else "grey",
        where=where,
        notes=(
            *(() if held.units is None else (ranges.note(where, held.units),)),
            *split_lib.notes(parts),
            *unlabeled.note(joined, where),
        ),
        mask="mask" in first,
        unlabeled=unlabeled.some(joined),
        units=held.units,
    )


def _check(
    stored: dict[str, np.ndarray], path: Path | str, prefixes: list[str], strict: bool, wanted: ranges.Wanted
) -> tuple[dict[str, dict[str, np.ndarray]], Units | None, tuple[str, ...]]:
    """Returns `image` [N, H, W, C], `label`, `factors`, `cond`, `mask` by prefix, checked together and converted."""
    held = {key: {p: stored[f"{p}{key}"] for p in prefixes if f"{p}{key}" in stored} for key in _KEYS}
    if any(len(group) not in (0, len(prefixes)) for group in held.values()):
        raise InputError(f"{path}: some splits have labels, factors, cond or mask and others do not; give all or none")
    named = {key: {f"{p}{key}": value for p, value in group.items()} for key, group in held.items()}
    pictures, masks, units, notes = _pictures(named["images"], named["mask"], path, strict, wanted)
    found = {
        "image": pictures,
        "label": values.integers(named["labels"], 1, path) if named["labels"] else {},
        "factors": values.integers(named["factors"], 2, path) if named["factors"] else {},
        "cond": values.vectors(named["cond"], path) if named["cond"] else {},
    }
    # Labels that are all unknown are none.
    if not any((value >= 0).any() for value in found["label"].values()):
        found["label"] = {}
    # By the names of the images: a mask may come from NaN in them, and have no array of its own.
    seen = {name.removesuffix("images"): mask for name, mask in masks.items()}
    out: dict[str, dict[str, np.ndarray]] = {}
    for p in prefixes:
        pairs = zip(found.items(), _KEYS[:-1], strict=True)
        arrays = {name: group[f"{p}{key}"] for (name, group), key in pairs if group}
        count = len(arrays["image"])
        for name, key in zip(("label", "factors", "cond"), _KEYS[1:-1], strict=True):
            if name in arrays and len(arrays[name]) != count:
                rows = "rows of " if name == "cond" else ""
                raise InputError(f"{path}: {len(arrays[name])} {rows}{p}{key} for {count} images; make them equal")
        out[p] = arrays | ({"mask": seen[p]} if p in seen else {})
    for key, group in (("cond", found["cond"]), ("factors", found["factors"])):
        widths = {value.shape[1] for value in group.values()}
        if len(widths) > 1:
            raise InputError(f"{path}: the splits have {key} of different lengths {sorted(widths)}; make them equal")
    shapes = {p.removesuffix("_"): arrays["image"].shape[1:] for p, arrays in out.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(f"{path}: the splits have images of different shapes {shapes}; make them equal")
    return out, units, notes


def _pictures(
    given: values.Named, masks: values.Named, path: Path | str, strict: bool, wanted: ranges.Wanted
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], Units | None, tuple[str, ...]]:
    """Returns images as they are kept, 0 where missing, what is observed of them, the user's units, and notes."""
    numbers = values.images(given, masks, path, strict)
    notes: tuple[str, ...] = ()
    if not strict and wanted == "auto" and ranges.are_levels(numbers.known):
        # Their run takes gray levels, and a float array of these is what many libraries make of a picture.
        images = {name: value.astype(np.uint8) for name, value in numbers.images.items()}
        known = {name: value.astype(np.uint8) for name, value in numbers.known.items()}
        numbers, notes = values.Numbers(images, numbers.seen, known), (ranges.note_levels(path, images),)
    units = ranges.units(numbers.known, path, strict, wanted)
    if strict and wanted == "auto" and units is not None and units.offset[0] < 0:
        values.refuse_series(given, path)
    if units is None:
        return {name: values.stored(value) for name, value in numbers.images.items()}, numbers.seen, None, notes
    made = {name: ranges.within(value, units) for name, value in numbers.images.items()}
    # What is missing is 0 to the model, whatever number 0 is in the user's units.
    for name, seen in numbers.seen.items():
        made[name][~seen] = 0
    return made, numbers.seen, units, notes
