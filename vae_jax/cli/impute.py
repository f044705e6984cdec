"""`impute`: missing values filled in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from vae_jax.cli.output import counting, destination, write
from vae_jax.cli.tables import check_writer, write_columns
from vae_jax.data.table_write import SUFFIXES
from vae_jax.errors import InputError
from vae_jax.options.ranges import SAMPLES, SEED, AtLeast

if TYPE_CHECKING:
    from vae_jax.tasks.imputing import Imputed


@dataclass(frozen=True)
class Impute:
    """Missing values filled in by importance sampling: E[x_mis | x_obs], or draws of x_mis."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    input: Path
    """.npy or .npz with images [N, H, W(, C)], series [N, T, C] or rows [N, D]: NaN where a value is missing, or an
    array mask, True where observed; for a run of a table, a .csv or .parquet with empty cells."""
    out: Path
    """File to write, of the input's kind and form: the same arrays, with missing values filled in; a table as .csv or
    .parquet."""
    k: Annotated[int, SAMPLES] = 1000
    """Importance samples per example."""
    samples: Annotated[int, AtLeast(0)] = 0
    """Multiple imputations: as many copies with draws; array `samples` of an .npz, all that a .npy holds, rows of a
    table with their number in a column `imputation`."""
    seed: Annotated[int, SEED] = 0
    """Seed of all noise."""
    batch_size: Annotated[int, AtLeast(1)] = 250
    """Examples at a time."""
    step: int | Literal["best"] | None = None
    """Checkpoint (default: the newest)."""

    def __call__(self) -> None:
        from vae_jax.runs.run import Run

        run = Run.load(self.run)
        suffix, rows = self.input.suffix.lower(), bool(run.spec.columns)
        kinds = SUFFIXES if rows else (suffix,) if suffix in (".npy", ".npz") else (".npy", ".npz")
        out = destination(self.out, self.out, kinds)
        check_writer(out)
        from vae_jax.tasks.imputing import impute

        with counting("imputing") as report:
            found = impute(
                run,
                self.input,
                k=self.k,
                samples=self.samples,
                seed=self.seed,
                batch_size=self.batch_size,
                step=self.step,
                report=report,
            )
        if rows:
            write_columns(out, _columns(found) if self.samples else found.x)
        elif suffix == ".npy":
            _save(out, found.samples if self.samples else found.x)
        else:
            more = {"samples": found.samples} if self.samples else {}
            write(out, {found.name: found.x, **found.arrays, **more})
        print(f"bound on log p(observed) with {self.k:,} samples: {found.bound.mean():.4f} nats per example")


def _columns(found: Imputed) -> dict[str, Any]:
    """Returns multiple imputations of a table one below the other, with their number as first column."""
    number = np.repeat(np.arange(1, len(found.samples) + 1), len(found.bound))
    return {"imputation": number} | {name: np.concatenate([copy[name] for copy in found.samples]) for name in found.x}


def _save(path: Path, array: np.ndarray) -> None:
    """Writes an .npy whole or not at all, and says so.

    Raises:
      InputError: the file cannot be written.
    """
    from vae_jax.files.atomic import replacing

    try:
        with replacing(path) as temporary:
            np.save(temporary, array)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); choose another --out") from error
    print(f"{path}: array {list(array.shape)}")
