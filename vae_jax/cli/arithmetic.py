"""`vae-jax arithmetic RUN --from A --to B`: the difference of two mean codes, added to the codes of examples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vae_jax.cli.output import check_count, say, write
from vae_jax.cli.tables import examples_out, write_rows
from vae_jax.options.ranges import DPI, AtLeast


@dataclass(frozen=True)
class Arithmetic:
    """Examples of one label (or factor value) moved towards another: z + t (mean code of B - mean code of A)."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    from_: Annotated[int, tyro.conf.arg(name="from")]
    """Label that the examples have, or value of the factor."""
    to: int
    """Label (or value) to go to."""
    factor: str | None = None
    """Factor that --from and --to are values of (default: the label)."""
    out: Path | None = None
    """Picture (.png, .pdf, .svg) or arrays (.npz, .npy) (default: RUN/figures/arithmetic.png); of a table .csv
    (default) or .parquet; of other rows of numbers, and of series, .npz (default)."""
    dpi: Annotated[int | None, DPI] = None
    """Dots per inch of the picture (default: 100)."""
    n: Annotated[int | None, AtLeast(1)] = None
    """Examples: the first n of the split with --from (default: 8, or all of fewer)."""
    steps: Annotated[int, AtLeast(2)] = 6
    """Examples on each path, from the code itself (t = 0) to --strength."""
    strength: float = 1.0
    """The last t: how many differences are added."""
    learn: Annotated[int, AtLeast(1)] = 10_000
    """Training examples whose codes give the means: the first ones, or some of every class of a sorted split."""
    split: str | None = None
    """train, validation or test (default: the one that the run evaluates)."""
    step: int | Literal["best"] | None = None
    """Checkpoint (default: the newest)."""

    def __call__(self) -> None:
        count = (self.n or 1) * (self.steps + 1)
        from vae_jax.runs.run import Run

        run = Run.load(self.run)
        out = examples_out(self.out, run, "arithmetic", count, self.dpi, folder=False)
        from vae_jax.tasks.paths import arithmetic

        found = arithmetic(
            run,
            self.from_,
            self.to,
            factor=self.factor,
            n=self.n,
            steps=self.steps,
            strength=self.strength,
            learn=self.learn,
            split=self.split,
            step=self.step,
        )
        if not write_rows(out, run, found.images):
            names = ("index", "direction", "shares", "codes", "images")
            write(
                check_count(out, found.images.shape[0] * (found.images.shape[1] + 1)),
                {name: getattr(found, name) for name in names},
                found.figure,
                dpi=self.dpi,
            )
        say(found.note)
