"""The user's own arrays: .npz with `images` (and `labels`, `factors`, `cond`), or .npy with the images alone."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from vae_jax.data import split as split_lib
from vae_jax.data.config import DataConfig
from vae_jax.data.source import SPLITS, Info, Source, from_arrays, no_validation
from vae_jax.errors import InputError, nearest

_KEYS = ("images", "labels", "factors", "cond")


def load(config: DataConfig, split: str) -> Source:
    """Returns a split of the arrays in `config.source`.

    `images` [N, H, W] or [N, H, W, C]: bool, integers 0..255, or floats in [0, 1] (kept as float32). `labels` integers
    [N]; `factors` integers [N, F]; `cond` floats [N, F], what a conditional model is given. A file may hold its own
    splits: `train_images`, `test_images`, `validation_images` and `train_labels` and so on; otherwise `protocol` says
    how it is split.
    """
    path = find(config.source)
    parts = read(path, config.protocol)
    if split not in parts:
        if split == "validation":
            raise no_validation("npz", config.protocol, ())
        raise InputError(f"{path}: holds no array {split}_images; add it")
    arrays = parts[split]
    info = describe("npz", parts, config.protocol, str(path))
    return from_arrays(info, split, arrays, config.pipeline)


def find(source: str | None) -> Path:
    """Returns the file that `source` names, or raises the line that says what is missing."""
    if source is None:
        raise InputError("data.source: 'npz' needs a file; name it with --data.source FILE.npz")
    path = Path(source).expanduser()
    if not path.is_file():
        raise InputError(f"data.source: no file {source!r}; name an .npz or .npy file")
    if path.suffix not in (".npz", ".npy"):
        raise InputError(f"data.source: {source!r} is neither .npz nor .npy; save it with numpy.savez(images=...)")
    return path


def read(path: Path, protocol: str) -> dict[str, dict[str, np.ndarray]]:
    """Returns the checked arrays of each split."""
    stored = _open(path)
    if any(f"{part}_images" in stored for part in SPLITS):
        if "train_images" not in stored:
            raise InputError(f"{path}: has splits, but no array train_images (has: {_names(stored)}); add it")
        known = [f"{part}_{key}" for part in SPLITS for key in _KEYS]
        _reject_unknown(stored, known, path)
        parts = {
            part: _check({key: stored[f"{part}_{key}"] for key in _KEYS if f"{part}_{key}" in stored}, path, f"{part}_")
            for part in SPLITS
            if f"{part}_images" in stored
        }
        widths = {arrays["cond"].shape[1] for arrays in parts.values() if "cond" in arrays}
        if len(widths) > 1:
            raise InputError(f"{path}: the splits have cond of different lengths {sorted(widths)}; make them equal")
        shapes = {part: arrays["image"].shape[1:] for part, arrays in parts.items()}
        if len(set(shapes.values())) > 1:
            raise InputError(f"{path}: the splits have images of different shapes {shapes}; make them equal")
        if len({tuple(sorted(arrays)) for arrays in parts.values()}) > 1:
            raise InputError(f"{path}: some splits have labels, factors or cond and others do not; give all or none")
        if protocol == "full":
            raise InputError(f"{path}: has its own splits; use --data.protocol standard")
        return parts
    if "images" not in stored:
        raise InputError(f"{path}: has no array 'images' (has: {_names(stored) or 'nothing'}); save it under that name")
    _reject_unknown(stored, list(_KEYS), path)
    arrays = _check(dict(stored), path, "")
    parts = split_lib.rows(len(arrays["image"]), protocol, str(path))
    return {part: {key: value[rows] for key, value in arrays.items()} for part, rows in parts.items()}


def describe(name: str, parts: dict[str, dict[str, np.ndarray]], protocol: str, where: str) -> Info:
    """Returns the facts about checked arrays."""
    height, width, channels = parts["train"]["image"].shape[1:]
    labels = [arrays["label"] for arrays in parts.values() if "label" in arrays]
    factors = [arrays["factors"] for arrays in parts.values() if "factors" in arrays]
    factor_sizes = tuple(int(n) + 1 for n in np.concatenate(factors).max(0)) if factors else ()
    images = parts["train"]["image"]
    return Info(
        name,
        (height, width, channels),
        {part: len(arrays["image"]) for part, arrays in parts.items()},
        protocol,
        split_lib.PROTOCOLS[protocol],
        num_classes=int(np.concatenate(labels).max()) + 1 if labels else None,
        factor_names=tuple(f"factor_{i}" for i in range(len(factor_sizes))),
        factor_sizes=factor_sizes,
        cond_size=parts["train"]["cond"].shape[1] if "cond" in parts["train"] else 0,
        values="float" if images.dtype == np.float32 else "grey",
        where=where,
    )


def _open(path: Path) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file:  # numpy leaves a damaged file open
            stored = np.load(file, allow_pickle=False)
            return {"images": stored} if path.suffix == ".npy" else {name: stored[name] for name in stored.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be read as numpy arrays ({reason}); save it with numpy.savez") from None


def _names(stored: dict[str, np.ndarray]) -> str:
    return ", ".join(sorted(stored))


def _reject_unknown(stored: dict[str, np.ndarray], known: list[str], path: Path) -> None:
    for name in stored:
        if name not in known:
            raise InputError(f"{path}: unknown array {name!r}; {nearest(name, known)} Remove or rename it")


def _check(arrays: dict[str, np.ndarray], path: Path, prefix: str) -> dict[str, np.ndarray]:
    """Returns `image` [N, H, W, C], `label`, `factors`, `cond`, converted without loss, or raises what is wrong."""
    out = {"image": _images(arrays["images"], path, f"{prefix}images")}
    for key, name, rank in (("labels", "label", 1), ("factors", "factors", 2)):
        if key not in arrays:
            continue
        value = arrays[key]
        if value.dtype.kind not in "iub" or value.ndim != rank:
            shape = "[N]" if rank == 1 else "[N, F]"
            raise InputError(f"{path}: {prefix}{key} must be integers {shape}, is {value.dtype} {value.shape}")
        if len(value) != len(out["image"]):
            raise InputError(f"{path}: {len(value)} {prefix}{key} for {len(out['image'])} images; make them equal")
        if value.size and int(value.min()) < 0:
            raise InputError(f"{path}: {prefix}{key} has negative values (least {value.min()}); count from 0")
        out[name] = value.astype(np.int32)
    if "cond" in arrays:
        out["cond"] = _vectors(arrays["cond"], len(out["image"]), path, f"{prefix}cond")
    return out


def _vectors(value: np.ndarray, count: int, path: Path, name: str) -> np.ndarray:
    if value.dtype.kind != "f" or value.ndim != 2 or 0 in value.shape:
        raise InputError(f"{path}: {name} must be floats [N, F], is {value.dtype} {value.shape}; use labels or factors")
    if len(value) != count:
        raise InputError(f"{path}: {len(value)} rows of {name} for {count} images; make them equal")
    if not np.isfinite(value).all():
        raise InputError(f"{path}: {name} has NaN or infinite values; remove them")
    return value.astype(np.float32)


def _images(images: np.ndarray, path: Path, name: str) -> np.ndarray:
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise InputError(f"{path}: {name} must be [N, H, W] or [N, H, W, C] and not empty, is {images.shape}")
    images = images[..., None] if images.ndim == 3 else images
    if images.shape[-1] > 4:
        raise InputError(f"{path}: {name} has {images.shape[-1]} channels {images.shape}; order it as [N, H, W, C]")
    if images.dtype == np.bool_:
        return images.astype(np.uint8) * np.uint8(255)
    if images.dtype.kind == "f":
        return _floats(images, path, name)
    if images.dtype.kind not in "iu":
        raise InputError(f"{path}: {name} has type {images.dtype}; save uint8 0..255 or float32 in [0, 1]")
    low, high = int(images.min()), int(images.max())
    if low < 0 or high > 255:
        raise InputError(f"{path}: {name} has integers in [{low}, {high}], not in [0, 255]; rescale them to 0..255")
    if high <= 1:  # 0/1 images saved as integers would train as almost black
        raise InputError(f"{path}: {name} has integers in [{low}, {high}]; multiply by 255, or save booleans")
    return images.astype(np.uint8)


def _floats(images: np.ndarray, path: Path, name: str) -> np.ndarray:
    bad = ~np.isfinite(images)
    if bad.any():
        first = int(np.flatnonzero(bad.reshape(len(images), -1).any(1))[0])
        raise InputError(
            f"{path}: {name} has {int(bad.sum())} NaN or infinite values, the first in image {first}; remove them"
        )
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        mend = "divide by 255" if low >= 0 and high <= 255 else f"rescale, e.g. (x - {low:g}) / {high - low:g}"
        raise InputError(f"{path}: {name} has values in [{low:g}, {high:g}], not in [0, 1]; {mend}")
    return images.astype(np.float32)
