"""`encode` and `decode`: examples to codes and back, through files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vae_jax.cli import unread
from vae_jax.cli.output import counting, destination, write
from vae_jax.cli.tables import examples_out, write_rows
from vae_jax.options.ranges import SEED, AtLeast


@dataclass(frozen=True)
class Encode:
    """Images to codes: mean and log_var of q(z|x), with index and labels, in one .npz."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    input: str
    """.npy or .npz with images [N, H, W(, C)], a folder of images, a prepared folder, or a data set name; for a run of
    a table, a .csv or .parquet with its columns."""
    out: Path
    """Arrays to write, .npz: mean, log_var, index, and z, labels, factors, cond where there are any; a model of several
    levels has mean/LEVEL, ... in their place."""
    split: str | None = None
    """Split of a data set, or of a file or folder that holds splits (default: that of the run, or the only one)."""
    draw: bool = False
    """Also write z, one sample of q(z|x) per image."""
    seed: Annotated[int, SEED] = 0
    """Seed of the samples."""
    batch_size: Annotated[int, AtLeast(1)] = 500
    """Images at a time."""
    step: int | Literal["best"] | None = None
    """Checkpoint (default: the newest)."""

    def __call__(self) -> None:
        if not self.draw:
            unread.refuse(self, "--draw True", "seed")
        out = destination(self.out, self.out, (".npz",))
        from vae_jax.runs.run import Run
        from vae_jax.tasks.codes import arrays, encode

        run = Run.load(self.run)
        with counting("encoding") as report:
            codes = encode(
                run,
                self.input,
                split=self.split,
                draw=self.draw,
                seed=self.seed,
                batch_size=self.batch_size,
                step=self.step,
                report=report,
            )
        write(out, arrays(run, codes))


@dataclass(frozen=True)
class Decode:
    """Codes to images."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    input: Path
    """.npz with `mean` or `z` [N, n], as `encode` writes it, or .npy; latents of another shape [N, *shape] too."""
    out: Path
    """PNG grid, or arrays where it ends in .npz or .npy; of a table .csv or .parquet."""
    array: str | None = None
    """Array of the .npz to decode (default: `mean`, else `z`, else the only one)."""
    pixels: Literal["mean", "mode", "sample"] = "mean"
    """What is written of p(x|z): its mean, the most probable image, or a draw."""
    label: int | None = None
    """Class to decode as, of a conditional model (default: what the file's array `cond` says of each code)."""
    cond: tuple[float, ...] = ()
    """Values of the factors, or the vector, that the model is conditioned on."""
    seed: Annotated[int, SEED] = 0
    """Seed of the draws."""
    step: int | Literal["best"] | None = None
    """Checkpoint (default: the newest)."""

    def __call__(self) -> None:
        if self.pixels != "sample":
            unread.refuse(self, "--pixels sample", "seed")
        examples_out(self.out, self.run, "decoded", 0)
        from vae_jax.runs.run import Run
        from vae_jax.tasks import codes

        run = Run.load(self.run)
        out = examples_out(self.out, self.run, "decoded", len(codes.read(run, self.input, self.array)[0]))
        found = codes.decoded(
            run,
            self.input,
            array=self.array,
            pixels=self.pixels,
            label=self.label,
            cond=self.cond,
            seed=self.seed,
            step=self.step,
        )
        if not write_rows(out, self.run, found.images):
            write(out, {"images": found.images}, found.figure)
