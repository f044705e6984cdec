"""Where a command writes: checked before any work is done, written whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vae_jax.errors import InputError
from vae_jax.options.ranges import DPI
from vae_jax.spec import Units, models

if TYPE_CHECKING:
    from vae_jax.runs.run import Run

FIGURES = (".png", ".pdf", ".svg")
PICTURES = (*FIGURES, ".npz", ".npy")
MOST = 4096  # images in one picture


def destination(
    out: Path | str | None,
    default: Path,
    suffixes: tuple[str, ...],
    *,
    run: Run | None = None,
    label: int | None = None,
) -> Path:
    """Returns the file or folder to write.

    Args:
      out: as it was typed, or None.
      default: where None leads.
      suffixes: of files that the command writes.
      run: whose images may also go into a folder (see `is_folder`), one PNG each; None where they may not.
      label: their class, which names a folder inside of that one; None for no class.

    Returns:
      the path of the file or folder.

    Raises:
      InputError: an extension that is not one of `suffixes`, a folder that is missing or may not be written, or one to
        write into that holds something.
    """
    path = default if out is None else Path(out)
    target = path
    if run is not None and is_folder(out):
        target = _folder(path, run, label)
    elif path.suffix.lower() not in suffixes:
        seen = f"extension {path.suffix!r}" if path.suffix else "no extension"
        *others, last = suffixes
        fix = f"{', '.join(others)} or {last}" if others else last
        files = ", or with / for a folder of PNG files" if run is not None else ""
        raise InputError(f"--out {path}: {seen}; end it with {fix}{files}")
    elif path.is_dir():
        raise InputError(f"--out {path}: is a folder; name a file")
    if out is None:
        return path  # in the run folder, whose parts are made when they are needed
    if not path.parent.is_dir():
        raise InputError(f"--out {path}: no folder {path.parent}; make it first, or choose another file")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"--out {path}: no permission to write in {path.parent}; choose another file")
    return target


def _folder(path: Path, run: Run, label: int | None) -> Path:
    """Returns the folder for images of a run, checked; those of a class go into a folder of its name."""
    from vae_jax.figures.folder import check_free, check_images
    from vae_jax.runs.inputs import class_name

    check_images(run.spec.x)
    # Some names of classes hold a slash, which would be a folder of its own.
    target = path if label is None else path / class_name(run.spec.label_names, label).replace("/", "-")
    check_free(target)
    return target


def check_apart(command: Any) -> None:
    """Checks that a command does not write over a file that it reads.

    Raises:
      InputError: `out` is the file of another of its options.
    """
    out = getattr(command, "out", None)
    if out is None or not os.path.exists(out):
        return
    others = (getattr(command, field.name) for field in dataclasses.fields(command) if field.name != "out")
    for given in others:
        for value in given if isinstance(given, tuple | list) else (given,):
            if isinstance(value, str | Path) and os.path.isfile(value) and os.path.samefile(value, out):
                raise InputError(f"--out {out}: the command reads this file; choose another")


def is_folder(out: Path | str | None) -> bool:
    """Says whether --out names a folder for one file per image: it ends with /, or is a folder."""
    if out is None or Path(out).suffix.lower() in PICTURES:
        return False
    return str(out).endswith(("/", os.sep)) or Path(out).is_dir()


def check_count(path: Path, count: int) -> Path:
    """Returns the file to write so many images to.

    Raises:
      InputError: it is a picture, and they are too many for one.
    """
    if path.suffix.lower() in FIGURES and count > MOST:
        raise InputError(f"--out {path}: {count:,} examples are too many for one picture; write them to a .npz file")
    return path


def check_dpi(path: Path, dpi: int | None) -> None:
    """Raises InputError for dots per inch out of range, or of what is no figure."""
    if dpi is not None and not DPI.holds(dpi):
        raise InputError(f"--dpi: {dpi} is out of range; it must be {DPI.words}")
    if dpi is not None and path.suffix.lower() not in FIGURES:
        raise InputError(f"--dpi {dpi}: is not used; end --out with {', '.join(FIGURES)}, or leave it out")


def write(
    path: Path,
    arrays: Mapping[str, Any],
    figure: Any = None,
    *,
    dpi: int | None = None,
    images: np.ndarray | None = None,
    names: Sequence[str] = (),
    units: Units | None = None,
) -> None:
    """Writes arrays to an .npz, the examples made to an .npy, the figure (called only then) to a picture, or images to
    a folder, and says so.

    Args:
      path: where to, of `destination`.
      arrays: by name; those that are None are left out.
      figure: makes the figure.
      dpi: of the figure; None for its own.
      images: float [N, H, W, C] for a folder; None for `images` of the arrays.
      names: of the files in a folder; () numbers them.
      units: of these images, which are brightness from 0 to 1 in a folder.

    Raises:
      InputError: the file cannot be written.
    """
    from vae_jax.files.arrays import write_npz
    from vae_jax.files.atomic import replacing

    try:
        path.parent.mkdir(exist_ok=True)
        if path.suffix.lower() not in PICTURES:
            from vae_jax.figures.folder import save_folder

            shown = arrays["images"] if images is None else images
            save_folder(models(shown, units), path, names)
            print(f"{path}: {len(shown):,} PNG files")
        elif path.suffix.lower() == ".npz":
            kept: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items() if value is not None}
            write_npz(path, kept, compressed=True)
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

            save(figure(), path, dpi)
            print(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); choose another --out") from error


def say(note: str) -> None:
    """Prints what is to be known of what was written; "" prints nothing."""
    if note:
        print(f"note: {note}")


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
