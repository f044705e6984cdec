"""Images as one PNG file each, in a folder of their own that a folder data set is read from again."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vae_jax.errors import InputError, either, option, shown
from vae_jax.files.atomic import temporary_folder
from vae_jax.spec import ArraySpec


def check_images(x: ArraySpec) -> None:
    """Raises InputError for data that PNG files cannot hold: no images, or of other than 1 or 3 channels."""
    if x.kind == "image" and x.shape[-1] in (1, 3):
        return
    what = f"images of {x.shape[-1]} channels" if x.kind == "image" else f"data of kind {x.kind}"
    fix = either("end --out with .npz", "use the arrays")
    raise InputError(f"{option('out')}: PNG files hold images of 1 or 3 channels, not {what}; {fix}")


def check_free(folder: Path, name: str = "out") -> None:
    """Raises InputError if a folder is there and holds anything; the line names a free one, and the option `name`."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if not os.path.lexists(folder):
        return
    base = folder if folder.name.strip(".") else folder.resolve()
    free = next(path for i in itertools.count(2) if not os.path.lexists(path := base.with_name(f"{base.name}-{i}")))
    what = f"holds {len(list(folder.iterdir())):,} files already" if folder.is_dir() else "is a file"
    raise InputError(f"{option(name)}: {shown(folder)} {what}, and nothing is overwritten; use {shown(free)}/, say")


def numbered(count: int, stems: Sequence[str] = ()) -> list[str]:
    """Returns `count` names of PNG files that sort in their order: 00000.png, or 00000_STEM.png."""
    width = max(5, len(str(max(count - 1, 0))))
    tails = [f"_{Path(stem).stem[:100]}" for stem in stems] or [""] * count
    return [f"{i:0{width}}{tail}.png" for i, tail in enumerate(tails)]


def save_folder(images: np.ndarray, folder: Path, names: Sequence[str] = ()) -> Path:
    """Writes images to PNG files in a new folder, all of them or none, and returns the folder.

    Args:
      images: [N, H, W, C] in [0, 1], of 1 or 3 channels; values outside are cut. They are rounded to 256 levels.
      folder: not there, or empty; its parent is made if it is missing.
      names: of the files; () for 00000.png and so on.

    Raises:
      InputError: the folder holds something, or images of other channels.
    """
    from PIL import Image

    check_free(folder)
    check_images(ArraySpec(tuple(images.shape[1:]), "image"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    levels = np.rint(255 * np.clip(np.nan_to_num(images), 0, 1)).astype(np.uint8)
    with temporary_folder(folder.parent, ".images-") as made:
        for name, pixels in zip(names or numbered(len(levels)), levels, strict=True):
            Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(made / name)
        made.chmod(0o755)  # a temporary folder is its owner's alone
        os.replace(made, folder)  # an empty folder gives way
    return folder
