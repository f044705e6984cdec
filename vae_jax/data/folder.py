"""The user's own folder of images, with class subfolders as labels and train/validation/test folders as splits."""

from __future__ import annotations

import dataclasses
import functools
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vae_jax.data import folder_index, pictures, values
from vae_jax.data import split as split_lib
from vae_jax.data.config import DataConfig
from vae_jax.data.folder_files import Files, describe, offering
from vae_jax.data.pictures import Fit
from vae_jax.data.source import DEVICE_BYTES, Info, Source, from_arrays, no_validation, not_in_memory
from vae_jax.errors import InputError, option, shown

_LOOK = 64  # files whose size says whether threads are worth it
_CHUNK = 64  # images decoded at a time to see whether they are bright


@dataclass(frozen=True)
class FolderRecords:
    """Decodes one image at a time; picklable, so grain's reader processes can use it.

    Attributes:
      files: of the split.
      image_shape: (H, W, C) of every image.
      fit: how an image becomes one of this size.
      group: as for `describe`.
    """

    files: Files
    image_shape: tuple[int, ...]
    fit: Fit
    group: str | None = "data."

    def __len__(self) -> int:
        return len(self.files.paths)

    def rows(self, index: np.ndarray, *, together: bool = False) -> dict[str, np.ndarray]:
        """Returns the examples `index`; `together` decodes large files in threads."""
        paths = [self.files.paths[i] for i in index]
        size = max(path.stat().st_size for path in paths[:_LOOK]) if together else 0
        pixels = np.empty((len(paths), *self.image_shape), np.uint8)
        with offering(self.group):
            decode = functools.partial(pictures.decode, shape=self.image_shape, fit=self.fit)
            for i, image in enumerate(folder_index.in_threads(decode, paths, size)):
                pixels[i] = image
        out = {"image": pixels}
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
    size and one number of channels, unless `image_size` (with `fit`) and `channels` convert them. Up to 1 GiB is
    decoded into memory; more is read while training.

    Args:
      config: `source` names the folder.
      split: "train", "validation" or "test".
      strict: False for images that a trained model looks at, which may be few and dark (see `values.images`), or one
        file; messages then offer no options of training.

    Raises:
      InputError: no such folder, or images that cannot be read in one way only.
    """
    group = "data." if strict else None
    parts, info = describe(config, group)
    if split not in parts:
        if split == "validation":
            raise no_validation("image_folder", config.protocol, split_lib.validated(parts))
        raise InputError(f"{shown(info.where)}: has no folder {split}; add it")
    records = FolderRecords(parts[split], info.shape, fit(config), group)
    in_memory = config.pipeline == "device" or (
        config.pipeline == "auto" and len(records) * int(np.prod(info.shape)) <= DEVICE_BYTES
    )
    if in_memory:
        _check_memory(config, len(records) * int(np.prod(info.shape)), info.where)
        with pictures.hushed():
            arrays = records.rows(np.arange(len(records)), together=True)
        check_scale(config, parts, info, [arrays["image"]], strict, group)
        found = from_arrays(info, split, arrays, "device")
    else:
        check_scale(config, {split: parts[split], **parts}, info, (), strict, group)
        found = Source(info, split, len(records), {}, not_in_memory, records, "grain")
    return dataclasses.replace(found, division=split_lib.of(parts), paths=parts[split].paths)


def fit(config: DataConfig) -> Fit:
    """Returns how the options bring images to their size."""
    return Fit(None if config.size is None else config.fit, config.color)


def _check_memory(config: DataConfig, size: int, where: str) -> None:
    """Refuses to hold more than `max_bytes` of decoded pixels, which `pipeline="device"` would."""
    most = config.max_bytes
    if size > most:
        raise InputError(
            f"data.max_bytes: the images of {shown(where)} are {size:,} bytes in memory, over {most:,}; use "
            f"{option('data.pipeline', 'grain')}, or {option('data.max_bytes', size)}"
        )


def check_scale(
    config: DataConfig,
    parts: Mapping[str, Files],
    info: Info,
    decoded: Iterable[np.ndarray] = (),
    strict: bool = True,
    group: str | None = "data.",
) -> None:
    """Checks that pixels are brightness from 0 to 255: of masks saved as 0 and 1, a model would see black alone.

    All splits are judged together, and decoded only until a bright pixel is found.

    Args:
      config: how the images are read.
      parts: the files of each split, in the order to look at them.
      info: facts about them.
      decoded: images that were decoded already, looked at first.
      strict: as in `load`.
      group: as for `describe`.

    Raises:
      InputError: no pixel is bright; the line rescales the files.
    """

    def images() -> Iterator[np.ndarray]:
        yield from decoded
        for files in parts.values():
            records = FolderRecords(files, info.shape, fit(config), group)
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
    command, bright = _rescaling(root, paths, info.shape[2], most)
    otherwise = "" if most == 1 else "; or, if they are as dark as that, save their pixels / 255 as images in an .npz"
    raise InputError(
        f"{shown(root)}: no pixel is above {most}, which is {dark} on the scale 0 to 255; use {shown(bright)} after "
        f"{command}{otherwise}"
    )


def _rescaling(root: Path, paths: Sequence[Path], channels: int, most: int) -> tuple[str, Path]:
    """Returns the shell command that writes a copy of a folder with all pixels multiplied, and the folder it writes."""
    # Instruments store 10 or 12 bits in 16. PIL would cut these at 255, and the greatest is only known rounded.
    deep = channels == 1 and all(pictures.header(path).deep for path in paths)
    times = 255 // (most + 1) if deep else 255 // most
    root = root if root.name.strip(".") else root.resolve()
    bright = root.with_name(f"{root.name}_bright")
    kinds = ", ".join(f'"{suffix}"' for suffix in sorted({path.suffix for path in paths}))
    old, new = (json.dumps(str(path), ensure_ascii=False) for path in (root, bright))
    mode = "L" if channels == 1 else "RGB"
    brighter = f'Image.open(p).convert("{mode}").point(lambda v: v * {times})'
    if deep:
        brighter = f'Image.fromarray((np.asarray(Image.open(p)).astype(int) * {times}).astype("uint16"))'
    code = (
        f"{'import numpy as np; ' * deep}from pathlib import Path; from PIL import Image; "
        f"old, new = Path({old}), Path({new}); "
        f'files = [p for p in old.rglob("*") if p.suffix in [{kinds}] and p.name[0] != "."]; '
        "[(new / p.relative_to(old)).parent.mkdir(parents=True, exist_ok=True) for p in files]; "
        f"[{brighter}.save(new / p.relative_to(old)) for p in files]"
    )
    return f"python -c {shlex.quote(code)}", bright
