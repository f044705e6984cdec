"""The user's own folder of images, with class subfolders as labels and train/validation/test folders as splits."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vae_jax.data import layout, pictures, values
from vae_jax.data import split as split_lib
from vae_jax.data.config import DataConfig
from vae_jax.data.source import DEVICE_BYTES, SPLITS, Info, Source, from_arrays, no_validation, not_in_memory
from vae_jax.errors import InputError, option, shown

_CHUNK = 64  # images decoded at a time to see whether they are bright


class MixedSizes(InputError):
    """The images of a folder are not all of one size; a caller whose `image_size` is fixed has other advice."""


@dataclass(frozen=True)
class Files:
    """Image files of one split, and their labels (all None without class folders)."""

    paths: tuple[Path, ...]
    labels: tuple[int | None, ...]


@dataclass(frozen=True)
class FolderRecords:
    """Decodes one image at a time; picklable, so grain's reader processes can use it."""

    files: Files
    image_shape: tuple[int, ...]
    resize: bool

    def __len__(self) -> int:
        return len(self.files.paths)

    def rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        out = {"image": np.stack([pictures.decode(self.files.paths[i], self.image_shape, self.resize) for i in index])}
        labels = [self.files.labels[i] for i in index]
        return out if None in labels else out | {"label": np.array(labels, np.int32)}

    def labels(self, index: np.ndarray) -> np.ndarray | None:
        """Returns the labels of the examples `index` without decoding them."""
        labels = [self.files.labels[i] for i in index]
        return None if None in labels else np.array(labels, np.int32)


def load(config: DataConfig, split: str, *, strict: bool = True) -> Source:
    """Returns a split of the images under `config.source`.

    A folder holds either images, or one subfolder per class, or train/, test/ (and validation/) folders of either
    kind, also under the names in `layout.SPLIT_NAMES`. Pictures are turned as their EXIF orientation says. All have one
    size, unless `image_size` is given: then the short side is resized to it (bicubic with anti-aliasing) and the center
    is cropped. Up to 1 GiB is decoded into memory; more is read while training.

    Args:
      config: `source` names the folder.
      split: "train", "validation" or "test".
      strict: False for images that a trained model looks at, which may be few and dark; see `values.images`.

    Raises:
      InputError: no such folder, or images that cannot be read in one way only.
    """
    parts, info = describe(config)
    if split not in parts:
        if split == "validation":
            raise no_validation("image_folder", config.protocol, ())
        raise InputError(f"{shown(info.where)}: has no folder {split}; add it")
    records = FolderRecords(parts[split], info.shape, config.image_size is not None)
    in_memory = config.pipeline == "device" or (
        config.pipeline == "auto" and len(records) * int(np.prod(info.shape)) <= DEVICE_BYTES
    )
    if in_memory:
        _check_memory(config, len(records) * int(np.prod(info.shape)), info.where)
        arrays = records.rows(np.arange(len(records)))
        check_scale(config, parts, info, [arrays["image"]], strict)
        return from_arrays(info, split, arrays, "device")
    check_scale(config, {split: parts[split], **parts}, info, (), strict)
    return Source(info, split, len(records), {}, not_in_memory, records, "grain")


def _check_memory(config: DataConfig, size: int, where: str) -> None:
    """Refuses to hold more than `max_bytes` of decoded pixels, which `pipeline="device"` would."""
    most = config.max_bytes
    if size > most:
        raise InputError(
            f"data.max_bytes: the images of {shown(where)} are {size:,} bytes in memory, over {most:,}; use "
            f"{option('data.pipeline', 'grain')}, or {option('data.max_bytes', size)}"
        )


def check_scale(
    config: DataConfig, parts: Mapping[str, Files], info: Info, decoded: Iterable[np.ndarray] = (), strict: bool = True
) -> None:
    """Checks that pixels are brightness from 0 to 255: of masks saved as 0 and 1, a model would see black alone.

    All splits are judged together, and decoded only until a bright pixel is found.

    Args:
      config: how the images are read.
      parts: the files of each split, in the order to look at them.
      info: facts about them.
      decoded: images that were decoded already, looked at first.
      strict: as in `load`.

    Raises:
      InputError: no pixel is bright; the line rescales the files.
    """

    def images() -> Iterator[np.ndarray]:
        yield from decoded
        for files in parts.values():
            records = FolderRecords(files, info.shape, config.image_size is not None)
            # Spread over the files: those of one class, which lie together, may all be dark.
            steps = -(-len(records) // _CHUNK)
            for first in range(steps):
                yield records.rows(np.arange(first, len(records), steps))["image"]

    most = int(values.span(images())[1])
    if most >= (values.DARK if strict else values.DARK_INPUT) or (most == 0 and not strict):
        return
    root = Path(info.where)
    if most == 0:
        raise InputError(f"{shown(root)}: every pixel is 0, so there is nothing to learn; name another folder")
    dark = "black" if most == 1 else "dark"
    paths = [path for files in parts.values() for path in files.paths]
    command, bright = _rescaling(root, paths, info.shape[2], 255 // most)
    otherwise = "" if most == 1 else "; or, if they are as dark as that, save their pixels / 255 as images in an .npz"
    raise InputError(
        f"{shown(root)}: no pixel is above {most}, which is {dark} on the scale 0 to 255; use {shown(bright)} after "
        f"{command}{otherwise}"
    )


def _rescaling(root: Path, paths: Sequence[Path], channels: int, times: int) -> tuple[str, Path]:
    """Returns the shell command that writes a copy of a folder with all pixels multiplied, and the folder it writes."""
    root = root if root.name.strip(".") else root.resolve()
    bright = root.with_name(f"{root.name}_bright")
    kinds = ", ".join(f'"{suffix}"' for suffix in sorted({path.suffix for path in paths}))
    old, new = (json.dumps(str(path), ensure_ascii=False) for path in (root, bright))
    mode = "L" if channels == 1 else "RGB"
    code = (
        f"from pathlib import Path; from PIL import Image; old, new = Path({old}), Path({new}); "
        f'files = [p for p in old.rglob("*") if p.suffix in [{kinds}] and p.name[0] != "."]; '
        "[(new / p.relative_to(old)).parent.mkdir(parents=True, exist_ok=True) for p in files]; "
        f'[Image.open(p).convert("{mode}").point(lambda v: v * {times}).save(new / p.relative_to(old)) for p in files]'
    )
    return f"python -c {shlex.quote(code)}", bright


def describe(config: DataConfig) -> tuple[dict[str, Files], Info]:
    """Returns the files of each split and the facts about them; reads the headers of all images."""
    parts, names, root, notes = scan(config.source, config.protocol)
    # A picture may belong to two splits (protocol "full"); its header is read once.
    paths = sorted({path for files in parts.values() for path in files.paths})
    shape, found = image_shape(paths, root, config.image_size)
    return parts, Info(
        "image_folder",
        shape,
        {part: len(files.paths) for part, files in parts.items()},
        config.protocol,
        split_lib.PROTOCOLS[config.protocol],
        num_classes=len(names) or None,
        label_names=names,
        where=str(root),
        notes=(*notes, *found),
    )


def scan(source: str | None, protocol: str) -> tuple[dict[str, Files], tuple[str, ...], Path, list[str]]:
    """Returns the files of each split, the class names (or ()), the folder, and what the user should know."""
    if source is None:
        raise InputError(f"data.source: 'image_folder' needs a folder; name it with {option('data')}")
    root = Path(source).expanduser()
    if not root.is_dir():
        raise InputError(f"data.source: no folder {source!r}; name a folder of images")
    found, notes = layout.split_folders(root)
    if not found:
        files, names, unread = _scan_classes(root)
        rows = split_lib.rows(len(files.paths), protocol, str(root), lambda: split_lib.file_hashes(files.paths))
        return {
            part: Files(tuple(files.paths[i] for i in chosen), tuple(files.labels[i] for i in chosen))
            for part, chosen in rows.items()
        }, names, root, unread  # fmt: skip
    if protocol == "full":
        raise InputError(
            f"{shown(root)}: has its own {found['train'].name} folder; use {option('data.protocol', 'standard')}"
        )
    train, names, unread = _scan_classes(found["train"])
    parts, notes = {"train": train}, notes + unread
    for part in SPLITS[1:]:
        if part in found:
            parts[part], _, unread = _scan_classes(found[part], names)
            notes += unread
    return parts, names, root, notes


def unread(root: Path) -> list[str]:
    """Returns what the user should know about a folder before any image is opened: what in it is not read."""
    found, notes = layout.split_folders(root)
    for part in found.values() if found else [root]:
        notes += layout.unread_note(part, layout.search(part).unread)
    return notes


def _scan_classes(folder: Path, known: tuple[str, ...] | None = None) -> tuple[Files, tuple[str, ...], list[str]]:
    found = layout.search(folder)
    if not found.images:
        beside = f", only {', '.join(map(shown, sorted(found.unread)))} files" if found.unread else ""
        raise InputError(
            f"{shown(folder)}: holds no images ({', '.join(pictures.SUFFIXES)}){beside}; name another folder"
        )
    labels, names = layout.classes(found.images, folder, known)
    return Files(tuple(found.images), labels), names, layout.unread_note(folder, found.unread)


def image_shape(paths: list[Path], root: Path, image_size: int | None) -> tuple[tuple[int, int, int], list[str]]:
    """Returns the one (H, W, C) of all images, from their headers, and what the user should know about them.

    Raises:
      InputError: an image that cannot be read, or two that differ; both are named.
    """
    sizes: dict[tuple[int, int], Path] = {}
    channels: dict[int, Path] = {}
    turned = several = 0
    for path in paths:
        head = pictures.header(path)
        turned, several = turned + head.turned, several + (head.frames > 1)
        sizes.setdefault((head.height, head.width), path)
        channels.setdefault(head.channels, path)
    if len(channels) > 1:
        (a, first), (b, second) = list(channels.items())[:2]
        raise InputError(
            f"{shown(root)}: mixed channels, {shown(first.name)} has {a} and {shown(second.name)} has {b}; convert all "
            "to gray or all to RGB"
        )
    notes = [f"{shown(root)}: {turned:,} images are turned as their EXIF orientation says"] if turned else []
    notes += [f"{shown(root)}: {several:,} images hold several frames; the first is read"] if several else []
    if image_size is None and len(sizes) > 1:
        (a, first), (b, second) = list(sizes.items())[:2]
        raise MixedSizes(
            f"{shown(root)}: mixed image sizes, {shown(first.name)} is {a[0]}x{a[1]} and {shown(second.name)} is "
            f"{b[0]}x{b[1]} ({len(sizes)} sizes in all); set "
            f"{option('data.image_size', _size(sizes))} to resize and crop them"
        )
    height, width = (image_size, image_size) if image_size is not None else next(iter(sizes))
    return (height, width, next(iter(channels))), notes


def _size(sizes: Iterable[tuple[int, int]]) -> int:
    """Returns a side that enlarges no image and suits every network: a power of two from 8 to 64, or a smaller side."""
    least = min(min(size) for size in sizes)
    return max((side for side in (8, 16, 32, 64) if side <= least), default=least)
