"""`encode` and `decode`: examples to codes and back, through files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vae_jax.cli import unread
from vae_jax.cli.output import counting, destination, write
from vae_jax.cli.tables import examples_out, write_rows
from vae_jax.errors import InputError
from vae_jax.options.ranges import DPI, SEED, AtLeast


@dataclass(frozen=True)
class Encode:
    """Examples to codes: mean and log_var of q(z|x), with index, labels and file names, in one .npz or .csv."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    input: tuple[str, ...]
    """.npy or .npz with images [N, H, W(, C)], series [N, T, C] or rows [N, D], images, a folder of images, a prepared
    folder, or a data set name; for a run of a table, a .csv or .parquet with its columns."""
    out: Path
    """.npz with mean, log_var, index, and z, labels, label_names, paths, factors, cond where there are any; a model of
    several levels has mean/LEVEL, ... in their place. Or .csv: path, label, z_0, z_1, ... (the mean), std_0, ..."""
    split: str | None = None
    """Split of a data set, or of a file or folder that holds splits (default: that of the run, or the only one)."""
    draw: bool = False
    """Also write z, one sample of q(z|x) per example."""
    seed: Annotated[int, SEED] = 0
    """Seed of the samples."""
    batch_size: Annotated[int, AtLeast(1)] = 500
    """Examples at a time."""
    step: int | Literal["best"] | None = None
    """Checkpoint (default: the newest)."""

    def __call__(self) -> None:
        if not self.draw:
            unread.refuse(self, "--draw True", "seed")
        out = destination(self.out, self.out, (".npz", ".csv"))
        if out.suffix.lower() == ".csv" and self.draw:
            raise InputError("--draw True: is not used by a .csv of means; end --out with .npz, or leave it out")
        from vae_jax.runs.run import Run
        from vae_jax.tasks import code_table
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
        if out.suffix.lower() == ".npz":
            write(out, arrays(run, codes))
        else:
            code_table.write(out, codes)
            print(f"{out}: {len(codes.mean):,} codes of {codes.mean.shape[1]} dimensions")


@dataclass(frozen=True)
class Decode:
    """Codes to examples."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    input: Path
    """.npz with `mean` or `z` [N, n] or .csv, as `encode` writes them, or .npy; latents of another shape [N, *shape]
    too."""
    out: str
    """Picture (.png, .pdf, .svg), arrays (.npz, .npy), or a folder, ending with /, for one PNG per image; of a table
    .csv or .parquet."""
    dpi: Annotated[int | None, DPI] = None
    """Dots per inch of the picture (default: 100)."""
    array: str | None = None
    """Array of the .npz to decode (default: `mean`, else `z`, else the only one)."""
    pixels: Literal["mean", "mode", "sample"] = "mean"
    """What is written of p(x|z): its mean, the most probable example, or a draw."""
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
        from vae_jax.runs.run import Run

        run = Run.load(self.run)
        out = examples_out(self.out, run, "decoded", 0, self.dpi)
        from vae_jax.tasks import codes

        out = examples_out(self.out, run, "decoded", len(codes.read(run, self.input, self.array)[0]))
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
        if not write_rows(out, run, found.images):
            write(out, {"images": found.images}, found.figure, dpi=self.dpi, units=found.units)
