"""The user's own folder of images, with class subfolders as labels and train/validation/test folders as splits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vae_jax.data import split as split_lib
from vae_jax.data.config import DataConfig
from vae_jax.data.source import DEVICE_BYTES, SPLITS, Info, Source, from_arrays, no_validation, not_in_memory
from vae_jax.errors import InputError

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_CHANNELS = {"1": 1, "L": 1, "RGB": 3, "P": 3, "CMYK": 3, "YCbCr": 3}  # PIL's mode -> channels after conversion


@dataclass(frozen=True)
class Files:
    """Image files of one split, and their labels (all None without class folders)."""

    paths: tuple[Path, ...]
    labels: tuple[int | None, ...]


@dataclass(frozen=True)
class FolderRecords:
    """Decodes one image at a time; picklable, so grain's reader processes can use it."""

    files: Files
    image_shape: tuple[int, int, int]
    resize: bool

    def __len__(self) -> int:
        return len(self.files.paths)

    def rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        out = {"image": np.stack([decode(self.files.paths[i], self.image_shape, self.resize) for i in index])}
        labels = [self.files.labels[i] for i in index]
        return out if None in labels else out | {"label": np.array(labels, np.int32)}


def load(config: DataConfig, split: str) -> Source:
    """Returns a split of the images under `config.source`.

    A folder holds either images, or one subfolder a class, or train/, test/ (and validation/) folders of either kind.
    All images have one size, unless `image_size` is given: then the short side is resized to it (bicubic with
    anti-aliasing) and the centre is cropped. Up to 1 GiB is decoded into memory; more is read while training.
    """
    parts, info = describe(config)
    if split not in parts:
        if split == "validation":
            raise no_validation("image_folder", config.protocol, ())
        raise InputError(f"{info.where}: has no folder {split}; add it")
    records = FolderRecords(parts[split], info.image_shape, config.image_size is not None)
    in_memory = config.pipeline == "device" or (
        config.pipeline == "auto" and len(records) * int(np.prod(info.image_shape)) <= DEVICE_BYTES
    )
    if in_memory:
        return from_arrays(info, split, records.rows(np.arange(len(records))), "device")
    return Source(info, split, len(records), {}, not_in_memory, records, "grain")


def describe(config: DataConfig) -> tuple[dict[str, Files], Info]:
    """Returns the files of each split and the facts about them; reads the headers of all images."""
    parts, names, root = scan(config.source, config.protocol)
    shape = image_shape([path for files in parts.values() for path in files.paths], root, config.image_size)
    return parts, Info(
        "image_folder",
        shape,
        {part: len(files.paths) for part, files in parts.items()},
        config.protocol,
        split_lib.PROTOCOLS[config.protocol],
        num_classes=len(names) or None,
        label_names=names,
        where=str(root),
    )


def scan(source: str | None, protocol: str) -> tuple[dict[str, Files], tuple[str, ...], Path]:
    """Returns the files of each split, the class names (or ()), and the folder."""
    if source is None:
        raise InputError("data.source: 'image_folder' needs a folder; name it with --data.source FOLDER")
    root = Path(source).expanduser()
    if not root.is_dir():
        raise InputError(f"data.source: no folder {source!r}; name a folder of images")
    if not (root / "train").is_dir():
        found, names = _scan_classes(root)
        rows = split_lib.rows(len(found.paths), protocol, str(root), lambda: split_lib.file_hashes(found.paths))
        return {
            part: Files(tuple(found.paths[i] for i in chosen), tuple(found.labels[i] for i in chosen))
            for part, chosen in rows.items()
        }, names, root  # fmt: skip
    if protocol == "full":
        raise InputError(f"{root}: has its own train folder; use --data.protocol standard")
    parts = {part: _scan_classes(root / part) for part in SPLITS if (root / part).is_dir()}
    names = parts["train"][1]
    for part, (_, other) in parts.items():
        if other != names:
            raise InputError(f"{root}: the class folders of {part} {other} differ from those of train {names}")
    return {part: files for part, (files, _) in parts.items()}, names, root


def _scan_classes(folder: Path) -> tuple[Files, tuple[str, ...]]:
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _SUFFIXES and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not paths:
        raise InputError(f"{folder}: holds no images ({', '.join(_SUFFIXES)}); name another folder")
    classes = [path.relative_to(folder).parts[0] if path.parent != folder else None for path in paths]
    names = tuple(sorted({name for name in classes if name is not None}))
    if names and None in classes:
        stray = paths[classes.index(None)]
        raise InputError(f"{folder}: holds class folders and also loose images ({stray.name}); sort them into classes")
    labels = tuple(names.index(name) if name is not None else None for name in classes)
    return Files(tuple(paths), labels), names


def image_shape(paths: list[Path], root: Path, image_size: int | None) -> tuple[int, int, int]:
    """Returns the one (H, W, C) of all images, from their headers, or raises which ones differ."""
    sizes: dict[tuple[int, int], Path] = {}
    channels: dict[int, Path] = {}
    for path in paths:
        width, height, mode = _header(path)
        if mode not in _CHANNELS:
            raise InputError(
                f"{path}: images of mode {mode} (alpha or more than 8 bits) are not read; save as 8-bit RGB"
            )
        sizes.setdefault((height, width), path)
        channels.setdefault(_CHANNELS[mode], path)
    if len(channels) > 1:
        (a, first), (b, second) = list(channels.items())[:2]
        raise InputError(
            f"{root}: mixed channels, {first.name} has {a} and {second.name} has {b}; convert all to grey or all to RGB"
        )
    if image_size is not None:
        return image_size, image_size, next(iter(channels))
    if len(sizes) > 1:
        (a, first), (b, second) = list(sizes.items())[:2]
        raise InputError(
            f"{root}: mixed image sizes, {first.name} is {a[0]}x{a[1]} and {second.name} is {b[0]}x{b[1]} "
            f"({len(sizes)} sizes in all); set --data.image-size to resize and crop them"
        )
    height, width = next(iter(sizes))
    return height, width, next(iter(channels))


def _header(path: Path) -> tuple[int, int, str]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.width, image.height, image.mode
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a readable image ({type(error).__name__}); remove or replace it") from None


def decode(path: Path, shape: tuple[int, int, int], resize: bool) -> np.ndarray:
    """Returns uint8 [H, W, C]; with `resize`, the short side becomes H and the centre is cropped."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image = image.convert("L" if shape[2] == 1 else "RGB")
            if resize:
                side = min(image.size)
                left, top = (image.width - side) / 2, (image.height - side) / 2
                box = (left, top, left + side, top + side)
                image = image.resize((shape[1], shape[0]), Image.Resampling.BICUBIC, box=box)
            pixels = np.asarray(image, np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: the image is damaged or cut off ({error}); remove or replace it") from None
    return pixels.reshape(shape)
