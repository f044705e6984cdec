"""Tables that commands write: the columns of a run's data, in their units and words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_jax.cli.output import PICTURES, check_count, check_dpi, destination
from vae_jax.data import table_read, table_write
from vae_jax.errors import InputError

if TYPE_CHECKING:
    from vae_jax.runs.run import Run

OUT = (*table_write.SUFFIXES, ".npz")
LINES = ("samples", "samples_expost", "reconstructions", "decoded")  # what is drawn of series


def examples_out(
    out: Path | str | None,
    run: Run,
    stem: str,
    count: int,
    dpi: int | None = None,
    *,
    label: int | None = None,
    folder: bool = True,
) -> Path:
    """Returns the file or folder for examples that a run makes: by default RUN/figures/STEM.png, of a table .csv, and
    .npz of what no picture shows.

    Args:
      out: as given.
      run: that makes them.
      stem: of the default's name.
      count: of the examples.
      dpi: dots per inch, where they were given.
      label: class of the examples, which names a folder inside of a folder.
      folder: whether they may go into a folder, one PNG each.

    Returns:
      a path that the run's data can be written to.

    Raises:
      InputError: as `output.destination`; too many for one picture; a .parquet without pyarrow; dots of no picture.
    """
    spec, figures = run.spec, run.path / "figures"
    if not spec.columns:
        is_drawn = spec.x.kind == "image" or (spec.x.kind == "sequence" and stem in LINES)
        default = figures / f"{stem}{'.png' if is_drawn else '.npz'}"
        path = destination(out, default, PICTURES, run=run if folder else None, label=label)
        check_dpi(path, dpi)
        return check_count(path, count)
    path = destination(out, figures / f"{stem}.csv", OUT)
    if dpi is not None:
        raise InputError(f"--dpi {dpi}: is not used, as {run.path} makes tables; leave it out")
    check_writer(path)
    return path


def check_writer(path: Path) -> None:
    """Raises InputError for a .parquet without pyarrow, before any work is done."""
    if path.suffix.lower() == ".parquet":
        table_read.parquet(f"--out {path}")


def write_rows(path: Path, run: Run, x: Any) -> bool:
    """Writes encoded rows [..., E] as a table, and says so; False, and nothing, where the run is not of a table.

    Raises:
      InputError: the file cannot be written.
    """
    if not run.spec.columns:
        return False
    from vae_jax.tasks.tables import rows

    write_columns(path, rows(run, x))
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
