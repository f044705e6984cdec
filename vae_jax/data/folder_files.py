"""What a folder of images holds: the files of each split, and facts from their headers."""

from __future__ import annotations

import contextlib
import functools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vae_jax.data import folder_index, layout, pictures, split_file, unlabeled
from vae_jax.data import split as split_lib
from vae_jax.data.config import DataConfig
from vae_jax.data.pictures import Broken
from vae_jax.data.source import SPLITS, Info
from vae_jax.errors import InputError, choice, option, shown


class Mixed(InputError):
    """The images of a folder do not all have one size, or one number of channels.

    A caller that has no such options has other advice; `wrong` is the message without any.
    """

    def __init__(self, wrong: str, fix: str):
        super().__init__(f"{wrong}; {fix}")
        self.wrong = wrong


@dataclass(frozen=True)
class Files:
    """Image files of one split, and their labels (all None without class folders)."""

    paths: tuple[Path, ...]
    labels: tuple[int | None, ...]


@contextlib.contextmanager
def offering(group: str | None) -> Iterator[None]:
    """Adds `skip_broken` to the advice of the message about a broken file, where the reader has that option."""
    try:
        yield
    except Broken as error:
        if group is None:
            raise
        raise Broken(f"{error}, or pass over such files with {option(f'{group}skip_broken', True)}") from None


def describe(config: DataConfig, group: str | None = "data.") -> tuple[dict[str, Files], Info]:
    """Returns the files of each split and the facts about them; reads the headers of all images.

    Args:
      config: how the images are read.
      group: what precedes the names of these options for the reader of a message: "data." in a config, "" of
        `data prepare`, None where a trained run has fixed them.
    """
    with offering(group):
        parts, names, root, notes = scan(config, alone=group is None)
        # A picture may belong to two splits (protocol "full"); its header is read once.
        paths = sorted({path for files in parts.values() for path in files.paths}, key=lambda path: path.parts)
        shape, found = image_shape(paths, root, config, group)
    held = split_lib.apart(parts).values()
    labels = np.array([label for files in held for label in files.labels if label is not None], np.int32)
    if kept := folder_index.of(root).keep():
        found = [*found, kept]
    return parts, Info(
        "image_folder",
        shape,
        {part: len(files.paths) for part, files in parts.items()},
        *split_lib.words(parts, config.protocol),
        num_classes=len(names) or None,
        label_names=names,
        where=str(root),
        notes=(*notes, *found, *split_lib.notes(parts), *unlabeled.note(labels, shown(root))),
        unlabeled=unlabeled.some(labels),
    )


def scan(config: DataConfig, *, alone: bool = False) -> tuple[dict[str, Files], tuple[str, ...], Path, list[str]]:
    """Returns the files of each split, the class names (or ()), the folder, and what the user should know.

    Args:
      config: `source`, `protocol` and `skip_broken` are read.
      alone: whether `source` may be one image.
    """
    source = config.source
    if source is None:
        raise InputError(f"data.source: 'image_folder' needs a folder; name it with {option('data')}")
    root = Path(source).expanduser()
    if alone and root.is_file():
        return {"train": Files((root,), (None,))}, (), root, []
    if not root.is_dir():
        raise InputError(f"data.source: no folder {source!r}; name a folder of images")
    found, notes = layout.split_folders(root)
    broken: list[Path] | None = [] if config.skip_broken else None
    if not found:
        files, names, unread = _scan_classes(root, broken=broken)
        return _divided(files, config, root), names, root, unread + _broken_note(root, broken)
    split_lib.refuse_own(config, f"{shown(root)}: has its own {found['train'].name} folder")
    train, names, unread = _scan_classes(found["train"], broken=broken)
    parts, notes = {"train": train}, notes + unread
    for part in SPLITS[1:]:
        if part in found:
            parts[part], _, unread = _scan_classes(found[part], names, broken)
            notes += unread
    return parts, names, root, notes + _broken_note(root, broken)


def _divided(files: Files, config: DataConfig, root: Path) -> split_lib.Parts:
    """Returns the files of each split of a folder without split folders."""
    names = tuple(path.relative_to(root).as_posix() for path in files.paths)
    division = split_lib.divided(
        config,
        shown(root),
        lambda: folder_index.of(root).of_hashes(files.paths),
        len(files.paths),
        groups=None if config.groups is None else _groups(config.groups, names, root, None not in files.labels),
        labels=None if None in files.labels else np.array(files.labels, np.int32),
        names=names,
    )
    parts = split_lib.Parts(
        {
            part: Files(tuple(files.paths[i] for i in chosen), tuple(files.labels[i] for i in chosen))
            for part, chosen in division.rows.items()
        }
    )
    parts.division = division
    return parts


def _groups(given: str, names: Sequence[str], root: Path, classes: bool) -> np.ndarray:
    """Returns the group of each file: of a table, or the folder below its class folder."""
    if given != "folder":
        return split_file.groups(given, names)
    # The same patient may be in two classes: the class folder is not part of the group's name.
    found = ["/".join(name.split("/")[1 if classes else 0 : -1]) for name in names]
    if "" in found:
        loose = names[found.index("")]
        raise InputError(
            f"data.groups: folder, but {shown(loose)} of {shown(root)} is in no folder of a group; sort the images "
            "into CLASS/GROUP/, or name a .csv with the columns path,group"
        )
    return np.array(found)


def _scan_classes(
    folder: Path, known: tuple[str, ...] | None = None, broken: list[Path] | None = None
) -> tuple[Files, tuple[str, ...], list[str]]:
    """Returns the images of a folder, its classes, and a note; broken files are moved to `broken` where it is given."""
    found = layout.search(folder, broken)
    if broken is not None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoders release Python's lock
            bad = list(pool.map(_is_broken, found.images))
        broken += [path for path, is_bad in zip(found.images, bad, strict=True) if is_bad]
        found.images = [path for path, is_bad in zip(found.images, bad, strict=True) if not is_bad]
    if not found.images:
        beside = f", only {', '.join(map(shown, sorted(found.unread)))} files" if found.unread else ""
        beside = f", only {len(broken):,} broken ones" if broken else beside
        raise InputError(
            f"{shown(folder)}: holds no images ({', '.join(pictures.SUFFIXES)}){beside}; name another folder"
        )
    labels, names = layout.classes(found.images, folder, known)
    return Files(tuple(found.images), labels), names, layout.unread_note(folder, found.unread)


def _is_broken(path: Path) -> bool:
    try:
        stat = path.stat()
    except OSError:
        return True
    return _broken_version(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1 << 17)
def _broken_version(path: Path, size: int, modified: int) -> bool:
    """Says whether a file cannot be decoded; each split of a folder asks for all of them, so answers are kept."""
    del size, modified  # what the cache tells versions of a file apart by
    try:
        pictures.check(path)
    except Broken:
        return True
    return False


def _broken_note(root: Path, broken: list[Path] | None) -> list[str]:
    """Returns the line that counts the files that were passed over because they are broken, or []."""
    if not broken:
        return []
    files = "1 broken file is" if len(broken) == 1 else f"{len(broken):,} broken files are"
    first = min(broken).relative_to(root)
    return [f"{shown(root)}: {files} passed over ({'the first is ' if len(broken) > 1 else ''}{shown(first)})"]


def image_shape(
    paths: list[Path], root: Path, config: DataConfig, group: str | None = "data."
) -> tuple[tuple[int, int, int], list[str]]:
    """Returns the one (H, W, C) of all images, from their headers, and what the user should know about them.

    Args:
      paths: of the images.
      root: their folder, for messages.
      config: `image_size`, `fit`, `channels` and `background` are read.
      group: as for `describe`.

    Returns:
      the shape, and a line about each thing that is done to some of the images.

    Raises:
      InputError: an image that cannot be read, or two that differ; both are named.
    """
    first: dict[tuple[int, int] | int, Path] = {}
    count: Counter[object] = Counter()
    for path, head in zip(paths, folder_index.of(root).of_headers(paths), strict=True):
        size = (head.height, head.width)
        first.setdefault(size, path)
        first.setdefault(head.channels, path)
        count.update([size, head.channels])
        count.update(name for name in ("turned", "several", "alpha", "deep") if getattr(head, name))
    size = _one_size(root, config, [key for key in first if isinstance(key, tuple)], first, group)
    return (*size, _one_channels(root, config, first, group)), _notes(root, config, size, count)


def _one_channels(root: Path, config: DataConfig, first: Mapping, group: str | None) -> int:
    """Returns the number of channels of all images; `first` has an image of each number that there is."""
    if config.channels != "auto":
        return 1 if config.channels == "grey" else 3
    seen = [key for key in first if isinstance(key, int)]
    if len(seen) > 1:
        (a, b), (one, other) = seen, (shown(first[key].name) for key in seen)
        raise Mixed(
            f"{shown(root)}: mixed channels, {one} has {a} and {other} has {b}",
            f"use {choice(f'{group or str()}channels', ('grey', 'rgb'))} to convert them",
        )
    return seen[0]


def _one_size(
    root: Path, config: DataConfig, sizes: list[tuple[int, int]], first: Mapping, group: str | None
) -> tuple[int, int]:
    """Returns the height and width of all images; `first` has an image of each size that there is."""
    group = group or ""
    if config.size is not None:
        if config.size[0] * config.size[1] > pictures.MAX_PIXELS:
            raise InputError(
                f"data.image_size: {config.size[0]} x {config.size[1]} is more than {pictures.MAX_PIXELS // 10**6} "
                f"megapixels; use {option(f'{group}image_size', _size(sizes))}, say"
            )
        return config.size
    if len(sizes) > 1:
        (a, b), (one, other) = sizes[:2], (shown(first[key].name) for key in sizes[:2])
        raise Mixed(
            f"{shown(root)}: mixed image sizes, {one} is {a[0]}x{a[1]} and {other} is {b[0]}x{b[1]} ({len(sizes)} "
            "sizes in all)",
            f"set {option(f'{group}image_size', _size(sizes))} to resize and crop them",
        )
    if config.fit != "crop":
        raise InputError(
            f"data.fit: {config.fit} is not used without a size; add {option(f'{group}image_size', _size(sizes))}, or "
            "leave it out"
        )
    return sizes[0]


def _notes(root: Path, config: DataConfig, size: tuple[int, int], count: Counter) -> list[str]:
    """Returns a line about each thing that is done to some of the images."""
    resized = sum(n for key, n in count.items() if isinstance(key, tuple) and key != size)
    done = {"crop": "resized and cropped", "pad": "resized and padded", "stretch": "stretched"}[config.fit]
    color = config.background if isinstance(config.background, str) else "the color {} {} {}".format(*config.color)
    said = {
        "turned": (count["turned"], "are turned as their EXIF orientation says"),
        "several": (count["several"], "hold several frames; the first is read"),
        "alpha": (count["alpha"], f"may be transparent; what is behind them is {color} ({option('data.background')})"),
        "deep": (count["deep"], "have 16 bits; they are scaled to 8"),
        "size": (resized, f"are {done} to {size[0]}x{size[1]}"),
    }
    return [f"{shown(root)}: {number:,} images {words}" for number, words in said.values() if number]


def _size(sizes: Iterable[tuple[int, int]]) -> int:
    """Returns a side that enlarges no image and suits every network: a power of two from 8 to 64, or a smaller side."""
    least = min(min(size) for size in sizes)
    return max((side for side in (8, 16, 32, 64) if side <= least), default=least)
