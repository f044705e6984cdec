"""Tables that commands write: the columns of a run's data, in their units and words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vae_jax.cli.output import PICTURES, check_count, destination
from vae_jax.data import table_read, table_write
from vae_jax.errors import InputError

OUT = (*table_write.SUFFIXES, ".npz")


def examples_out(out: Path | None, run: Path, stem: str, count: int) -> Path:
    """Returns the file for examples that a run makes: by default RUN/figures/STEM.png, of a table .csv.

    Args:
      out: as given.
      run: the run's folder.
      stem: of the default's name.
      count: of the examples.

    Returns:
      a path whose extension the run's data can be written to.

    Raises:
      InputError: as `output.destination`; too many for one picture; a .parquet without pyarrow.
    """
    if not is_table(run):
        return check_count(destination(out, run / "figures" / f"{stem}.png", PICTURES), count)
    path = destination(out, run / "figures" / f"{stem}.csv", OUT)
    check_writer(path)
    return path


def is_table(run: Path) -> bool:
    """Says whether a run is of a table.

    Raises:
      InputError: it is no run folder, or cannot be read.
    """
    from vae_jax.runs.run import Run

    return bool(Run.load(run).spec.columns)


def check_writer(path: Path) -> None:
    """Raises InputError for a .parquet without pyarrow, before any work is done."""
    if path.suffix.lower() == ".parquet":
        table_read.parquet(f"--out {path}")


def write_rows(path: Path, run: Path, x: Any) -> bool:
    """Writes encoded rows [..., E] as a table, and says so; False, and nothing, for a path of another kind.

    Raises:
      InputError: the file cannot be written.
    """
    if path.suffix.lower() not in table_write.SUFFIXES:
        return False
    from vae_jax.runs.run import Run
    from vae_jax.tasks.tables import rows

    write_columns(path, rows(Run.load(run), x))
    return True


def write_columns(path: Path, columns: dict[str, Any]) -> None:
    """Writes columns by name as a table, and says so.

    Raises:
      InputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(exist_ok=True)
        table_write.write(path, columns)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); choose another --out") from error
    print(f"{path}: {len(next(iter(columns.values()))):,} rows, {len(columns)} columns")
