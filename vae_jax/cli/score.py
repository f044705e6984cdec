"""`score`: how likely a model finds each example, into a table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from vae_jax.cli import unread
from vae_jax.cli.output import counting, destination
from vae_jax.errors import InputError
from vae_jax.options.ranges import SAMPLES, SEED, AtLeast

if TYPE_CHECKING:
    import numpy as np

    from vae_jax.runs.run import Run


@dataclass(frozen=True)
class Score:
    """Scores of single examples: ELBO, importance-weighted bound, likelihood regret (arXiv:2003.02977), reconstruction
    error, and a flag for those that are unlike the training data."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    input: tuple[str, ...]
    """Examples: images, a folder of images, .npy or .npz with images [N, H, W(, C)], series [N, T, C] or rows [N, D], a
    table, or a data set name."""
    out: Path
    """Table to write, .csv: one row per example."""
    k: Annotated[int, SAMPLES] = 50
    """Importance samples of the bound."""
    regret_steps: Annotated[int, AtLeast(0)] = 100
    """Updates of each example's own posterior in the likelihood regret; 0 leaves it out."""
    threshold: float | None = None
    """Flag examples whose ELBO, in nats, is below it (default: the 1st percentile of training examples)."""
    learn: Annotated[int, AtLeast(1)] = 10_000
    """Training examples that give the threshold: the first ones, or some of every class of a sorted split."""
    maps: Path | None = None
    """Folder for error maps, one PNG per example: absolute error, from black, 0, to white, the largest of all."""
    split: str | None = None
    """Split of a data set, or of a file or folder that holds splits (default: that of the run, or the only one)."""
    seed: Annotated[int, SEED] = 0
    """Seed of all noise."""
    batch_size: Annotated[int, AtLeast(1)] = 250
    """Examples at a time. No number depends on it."""
    step: int | Literal["best"] | None = None
    """Checkpoint (default: the newest)."""

    def __call__(self) -> None:
        if self.threshold is not None:
            unread.refuse(self, "", "learn")
        out = destination(self.out, self.out, (".csv",))
        from vae_jax.runs.run import Run
        from vae_jax.tasks.code_table import save
        from vae_jax.tasks.scoring import PERCENTILE, score

        run = Run.load(self.run)
        if self.maps is not None:
            _check_maps(self.maps, run)
        with counting("scoring") as report:
            found = score(
                run,
                self.input,
                k=self.k,
                regret_steps=self.regret_steps,
                threshold=self.threshold,
                learn=self.learn,
                maps=self.maps is not None,
                split=self.split,
                seed=self.seed,
                batch_size=self.batch_size,
                step=self.step,
                report=report,
            )
        table = found.table()
        save(out, list(table), ([_text(v) for v in row] for row in zip(*table.values(), strict=True)))
        made_of = f"the {PERCENTILE}st percentile of {found.known:,} training examples" if found.known else "as given"
        print(
            f"{out}: {len(found.elbo):,} examples, {int(found.flag.sum()):,} flagged: ELBO below "
            f"{found.threshold:.6g} nats, {made_of}"
        )
        for note in found.notes:
            print(note)
        if self.maps is not None and found.maps is not None:
            _write_maps(self.maps, found.maps, found.paths)


def _check_maps(folder: Path, run: Run) -> None:
    """Raises InputError, before any work, for maps that cannot be written."""
    from vae_jax.figures.folder import check_free

    if run.spec.x.kind != "image":
        raise InputError(f"--maps: the data are of kind {run.spec.x.kind}, not images; leave it out")
    if not folder.parent.is_dir():
        raise InputError(f"--maps {folder}: no folder {folder.parent}; make it first, or choose another one")
    check_free(folder, "maps")


def _write_maps(folder: Path, maps: np.ndarray, paths: tuple[str, ...]) -> None:
    """Writes error maps [N, H, W] on one scale, and says which."""
    from vae_jax.figures.folder import numbered, save_folder

    most = float(maps.max())
    try:
        save_folder(maps[..., None] / (most or 1.0), folder, numbered(len(maps), paths))
    except OSError as error:
        raise InputError(
            f"--maps {folder}: cannot be written ({error.strerror or error}); choose another folder"
        ) from error
    print(f"{folder}: {len(maps):,} error maps on one scale, black 0 to white {most:.4g}")


def _text(value: object) -> object:
    """Returns a number with the digits that a float32 has."""
    return f"{value:.9g}" if isinstance(value, float) else value
