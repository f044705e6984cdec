"""What a path given for `--data` is, and so which data set reads it."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

from vae_jax.data import idx, layout, mnist, prepared, series, vectors
from vae_jax.data.own import Entry
from vae_jax.data.pictures import CONVERTIBLE, SUFFIXES
from vae_jax.data.table_read import SUFFIXES as TABLES
from vae_jax.errors import InputError, nearest, option, shown

KINDS = (
    "a folder of images, an .npz or .npy file, a table (.csv, .parquet), a folder of IDX files, a prepared data set, "
    "or a data set's name"
)
_ARRAYS = (".npz", ".npy")


def pick(given: str, datasets: Mapping[str, Entry]) -> tuple[str, str | None]:
    """Returns (data set, source): the data set that reads a path, or the one of this name with no source.

    Args:
      given: a path, or a name in `datasets`.
      datasets: the registry.

    Raises:
      InputError: nothing that is read; the line says what is, and what to type.
    """
    path = Path(given).expanduser()
    if given in datasets:
        if path.exists():
            raise InputError(
                f"{_given(given)}: is the name of a data set and of something here; use {_typed(f'./{given}')} for "
                f"what is here, or {option('data.name', given)} for the data set"
            )
        return given, None
    if path.is_dir():
        return _folder(path, given, datasets), given
    if path.exists():
        return _file(path, given), given
    named = {name for name, entry in datasets.items() if not entry.reads_files}  # the others' names lead nowhere
    here = [p.name for p in path.parent.iterdir() if not p.name.startswith(".")] if path.parent.is_dir() else []
    near = [str(path.parent / name) if path.parent != Path(".") else name for name in here]
    # A file is named only where it is like what was typed: the rest of a folder has nothing to do with data.
    close = difflib.get_close_matches(given, [*map(shown, near), *named], n=1, cutoff=0.6)
    meant = nearest(given, close or named)
    raise InputError(f"{_given(given)}: no such file, folder or data set; {meant}")


def _file(path: Path, given: str) -> str:
    suffix = path.suffix.lower()
    if suffix in _ARRAYS:
        if vectors.looks_so(path):
            return "vectors"
        return "series" if series.looks_so(path) else "npz"
    if suffix in TABLES:
        return "table"
    if suffix in SUFFIXES:
        raise InputError(f"{_given(given)}: is one image; name its folder: {_typed(path.parent)}")
    if "-ubyte" in path.name:
        raise InputError(f"{_given(given)}: is one IDX file; name the folder of all four: {_typed(path.parent)}")
    if not path.is_file():
        raise InputError(f"{_given(given)}: is neither a file nor a folder; name {KINDS}")
    arrays = path.with_suffix(".npz")
    raise InputError(
        f"{_given(given)}: {suffix or 'a file without extension'} is not read, only {KINDS}; save the images "
        f"with numpy.savez({shown(arrays.name)!r}, images=...) and use {_typed(arrays)}"
    )


def _given(given: object) -> str:
    """Returns the option and its value as messages begin with them."""
    return f"{option('data')} {shown(given)}"


def _typed(path: Path | str) -> str:
    return option("data", str(path))


def _folder(path: Path, given: str, datasets: Collection[str]) -> str:
    if prepared.is_prepared(path):
        return _prepared(path, datasets)
    stems = [stem for edition in mnist.EDITIONS.values() for stem in edition.sha256]
    files = {stem: file for stem in stems if (file := idx.find([path], stem)) is not None}
    if files:
        return _edition(path, files)
    if layout.has_images(path):
        return "image_folder"
    inner = sorted(file for file in path.glob("*") if file.suffix.lower() in _ARRAYS)
    inner += sorted(file.parent for depth in ("*", "*/*", "*/*/*") for file in path.glob(f"{depth}/dataset_info.json"))
    if inner:
        raise InputError(f"{_given(given)}: holds no images, but {shown(inner[0].name)}; use {_typed(inner[0])}")
    if unread := layout.search(path).unread.keys() & CONVERTIBLE:
        kinds = ", ".join(sorted(unread))
        raise InputError(f"{_given(given)}: holds {kinds} files, which are not read; convert them to .png")
    raise InputError(f"{_given(given)}: holds no images ({', '.join(SUFFIXES)}); name one of: {KINDS}")


def _prepared(path: Path, datasets: Collection[str]) -> str:
    name = prepared.stored_name(path).removeprefix(prepared.PREFIX)
    assert name in datasets, "every data set of ours is registered"
    return name


def _edition(path: Path, files: dict[str, Path]) -> str:
    """Returns whether IDX files are MNIST's or Fashion-MNIST's: their names are the same, their bytes are not."""
    stem, file = min(files.items(), key=lambda item: item[1].stat().st_size)
    got = hashlib.sha256(idx.read_bytes(file)).hexdigest()
    for name, edition in mnist.EDITIONS.items():
        if edition.sha256[stem] == got:
            return name
    raise InputError(
        f"{_given(path)}: {file.name} is neither MNIST's nor Fashion-MNIST's (sha256 {got}); copy the files "
        "again, or save other data with numpy.savez('data.npz', images=..., labels=...) and use "
        f"{option('data', 'data.npz')}"
    )
