"""Where a command writes: checked before any work is done, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.errors import InputError

PICTURES = (".png", ".npz", ".npy")
MOST = 4096  # images in one PNG


def destination(out: Path | None, default: Path, suffixes: tuple[str, ...]) -> Path:
    """Returns the file to write.

    Raises:
      InputError: an extension that is not one of `suffixes`, a folder that is missing or may not be written.
    """
    path = default if out is None else out
    if path.suffix.lower() not in suffixes:
        seen = f"extension {path.suffix!r}" if path.suffix else "no extension"
        raise InputError(f"--out {path}: {seen}; end it with {' or '.join(suffixes)}")
    if path.is_dir():
        raise InputError(f"--out {path}: is a folder; name a file")
    if out is None:
        return path  # in the run folder, whose parts are made when they are needed
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: no folder {path.parent}; make it first, or choose another file")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"--out {path}: no permission to write in {path.parent}; choose another file")
    return path


def check_count(path: Path, count: int) -> Path:
    """Returns the file to write so many images to.

    Raises:
      InputError: it is a picture, and they are too many for one.
    """
    if path.suffix.lower() == ".png" and count > MOST:
        raise InputError(f"--out {path}: {count:,} images are too many for one picture; write them to a .npz file")
    return path


def write(path: Path, arrays: Mapping[str, Any], figure: Any = None) -> None:
    """Writes arrays to an .npz, the examples made to an .npy, or the figure (called only then) to a PNG; says so.

    Raises:
      InputError: the file cannot be written.
    """
    from vae_jax.files.atomic import replacing

    try:
        path.parent.mkdir(exist_ok=True)
        if path.suffix.lower() == ".npz":
            kept: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items() if value is not None}
            with replacing(path) as temporary:
                np.savez_compressed(temporary, **kept)
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in kept.items())
            print(f"{path}: {shapes}")
        elif path.suffix.lower() == ".npy":
            # One array: what the command makes.
            name = next(name for name in ("reconstructions", "images") if name in arrays)
            with replacing(path) as temporary:
                np.save(temporary, arrays[name])
            print(f"{path}: {name} {list(np.shape(arrays[name]))}")
        else:
            from vae_jax.figures import save

            save(figure(), path)
            print(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); choose another --out") from error


@contextlib.contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yields `report(done, total)`, which moves a bar on a terminal and prints nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, markup=False, emoji=False)
    columns = (
        TextColumn(what, markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
