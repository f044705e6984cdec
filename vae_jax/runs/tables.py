"""Tables of the user's own, as a run's model takes them: columns are found by their names, whatever their order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_jax.data import (
    DataConfig,
    Info,
    Source,
    from_arrays,
    memory,
    table_codes,
    table_columns,
    table_read,
    unlabeled,
)
from vae_jax.data.pipeline import eval_batches
from vae_jax.data.table_read import Cells
from vae_jax.errors import InputError, nearest, option, shown
from vae_jax.runs.examples import check_kind
from vae_jax.runs.run import Run


class Given(NamedTuple):
    """A table that was given to a run: all of its cells, those of the run's columns among them, and its batches."""

    cells: tuple[Cells, ...]
    config: DataConfig
    source: Source


def is_named(run: Run, given: Any) -> bool:
    """Says whether the examples are those of the run's own data set."""
    return isinstance(given, str) and given in (run.config.data.name, run.config.data.shown)


def batches(
    run: Run, given: Any, batch_size: int, what: str, *, asked: str = "", limit: int = 0
) -> tuple[Iterator[dict[str, Any]], Source]:
    """Reads a table for a run's model, a batch at a time.

    Args:
      run: of a table.
      given: as of `read`, or the name of the run's own data set.
      batch_size: rows at a time.
      what: the argument and its value, for messages.
      asked: the split that the user named, "" for none.
      limit: only so many rows; 0 for all.

    Returns:
      batches with `x` and `index`, and the source.

    Raises:
      InputError: as `read`; or a split of rows without splits.
    """
    if is_named(run, given):
        source = run.source(asked or run.config.evaluation.split)
        return eval_batches(source, run.config.data, batch_size, limit=limit), source
    if asked:
        raise InputError(f"{option('split', asked)}: is not used, for a table holds no splits; leave it out")
    found = read(run, given, what)
    return eval_batches(found.source, found.config, batch_size, limit=limit), found.source


def read(run: Run, given: Any, what: str) -> Given:
    """Returns the rows of a table, encoded as the run's model was trained.

    Args:
      run: of a table.
      given: the path of a .csv, .tsv, .parquet, .npy or .npz, columns by name (a dict, or a data frame), or an array
        [N, D] for a run of such an array.
      what: the argument and its value, for messages.

    Raises:
      InputError: it cannot be read, lacks a column, or holds a value that its column cannot take.
    """
    columns = run.spec.columns
    if isinstance(given, str | Path):
        path = Path(given).expanduser()
        check_kind(run, path, what)
        if not path.is_file():
            raise InputError(f"{what}: no such file; give a .csv, .tsv or .parquet, or {run.config.data.shown!r}")
        cells = table_read.read(path, run.config.data.max_bytes)
    elif isinstance(given, Mapping) or memory.is_frame(given):
        cells = table_read.from_columns(memory.columns(given, what), what)
    elif np.ndim(given) == 2 and [c.name for c in columns] == [f"x{i}" for i in range(np.shape(given)[1])]:
        cells = table_read.of_arrays(memory.named(given, what, "x"), what)
    else:
        raise InputError(
            f"{what}: {type(given).__name__} has no names of columns; give a dict of columns, as run.table(x) makes of "
            "samples, or the path of a .csv"
        )
    held = table_codes.chosen(cells, columns, what)
    x, seen = table_codes.encode(held, columns, what)
    arrays = {"x": x}
    if not seen.all():
        if not run.model.about.takes_mask:
            raise InputError(
                f"{what}: has empty cells, which the model of {run.path} does not take; give rows without any"
            )
        arrays["mask"] = seen
    if (label := _labels(run, cells, what)) is not None:
        arrays["label"] = label
    # Options that cut or split the training data have no part in rows that are taken as they come.
    config = dataclasses.replace(run.config.data, batch_size=1, limit=None, labels=None, pipeline="auto")
    info = Info(
        "table",
        run.spec.x.shape,
        {"train": len(x)},
        "full",
        "all rows",
        num_classes=run.spec.classes if label is not None else None,
        label_names=run.spec.label_names if label is not None else (),
        values="float",
        where=what,
        kind="vector",
        mask="mask" in arrays,
        columns=columns,
        unlabeled=label is not None and unlabeled.some(label),
    )
    return Given(cells, config, from_arrays(info, "train", arrays))


def _labels(run: Run, cells: Sequence[Cells], what: str) -> np.ndarray | None:
    """Returns the labels of the rows in the numbers of the run, int32 [N]; None where there are none."""
    name, condition = run.config.data.table.label, run.model.condition
    held = next((c for c in cells if c.name == name), None)
    seen = np.zeros(0, bool) if held is None else held.seen
    if condition is not None and condition.is_required and condition.on == "label" and not (seen.size and seen.all()):
        # A row of no class would be decoded as none of those that the model knows, without a word.
        lacks = (
            "which is not there; add it"
            if held is None
            else (
                f"which is empty in {int((~seen).sum())} rows, the first is row {int(np.argmin(seen)) + 1}; fill it in"
            )
        )
        raise InputError(f"{what}: {run.path} is conditioned on column {shown(name)}, {lacks}")
    if held is None or not seen.any():
        return None
    number, names = table_columns.labels(held, what)
    for known in names:
        if known not in run.spec.label_names:
            raise InputError(
                f"{what}: {shown(known)!r} in column {shown(name)} is no class of {run.path}; "
                f"{nearest(known, run.spec.label_names)} Correct it"
            )
    return unlabeled.renumbered(np.array([run.spec.label_names.index(known) for known in names], np.int32), number)
