"""What a run was trained on, in words, and the refusal of files of another kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vae_jax.data.layout import some
from vae_jax.data.pictures import SUFFIXES
from vae_jax.data.table_read import SUFFIXES as TABLES
from vae_jax.errors import InputError
from vae_jax.runs.run import Run


def describe(shape: Sequence[int]) -> str:
    """Returns "28x28 with 1 channel"."""
    height, width, channels = shape
    return f"{height}x{width} with {channels} channel{'s' if channels > 1 else ''}"


def words(shape: Sequence[int], kind: str) -> str:
    """Returns examples of a shape in words: "series of 12 times x 3 channels"."""
    if kind == "image":
        return f"images of {describe(shape)}"
    if kind == "sequence":
        return f"series of {shape[0]} times x {shape[1]} channels"
    return f"{kind}s of {shape[0]} numbers" if kind == "vector" else f"rows of {shape[0]} {kind}"


def check_kind(run: Run, path: Path, what: str) -> None:
    """Checks that a file or folder can hold what a run was trained on; reads nothing.

    Args:
      run: a table's, or that of other data.
      path: that was given to it.
      what: the argument and its value, for messages.

    Raises:
      InputError: a table for a run of other data, or an image or a folder for a run of a table.
    """
    suffix, names = path.suffix.lower(), [column.name for column in run.spec.columns]
    if names and path.is_dir():
        seen = "a folder"
    elif names and suffix in SUFFIXES and path.is_file():
        seen = "an image"
    elif not names and suffix in TABLES and path.is_file():
        seen = "a table"
    else:
        return
    wanted = f"a table with columns {some(names)}" if names else words(run.spec.x.shape, run.spec.x.kind)
    fix = "give a .csv, .tsv or .parquet with these" if names else "give such examples"
    raise InputError(f"{what}: is {seen}, but {run.path} was trained on {wanted}; {fix}")
