"""`compress` and `decompress`: examples as the entropy-coded codes of two stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from vae_jax.cli.output import counting, destination, write
from vae_jax.cli.tables import examples_out, write_rows
from vae_jax.errors import InputError
from vae_jax.options.ranges import DPI, AtLeast


@dataclass(frozen=True)
class Compress:
    """Examples to a small file: the codes of the first stage, entropy-coded with the prior of the second one."""

    run: tyro.conf.Positional[Path]
    """Run folder of a second stage that draws one code after another (transformer, pixelcnn)."""
    input: tyro.conf.Positional[tuple[str, ...]]
    """Images, a folder of images, .npy, .npz, a prepared folder, or a data set name."""
    out: Path
    """File to write, .vjc."""
    split: str | None = None
    """Split of a data set, or of a file or folder that holds splits (default: that of the run, or the only one)."""
    batch_size: Annotated[int, AtLeast(1)] = 500
    """Examples encoded at a time."""
    step: int | Literal["best"] | None = None
    """Checkpoint (default: the newest)."""

    def __call__(self) -> None:
        out = destination(self.out, self.out, (".vjc",))
        if not self.input:
            raise InputError("input: name what to compress, as in `vae-jax compress RUN images/ --out images.vjc`")
        from vae_jax.files.atomic import replacing
        from vae_jax.runs.run import Run
        from vae_jax.tasks.compressing import compress

        run = Run.load(self.run)
        with counting("compressing") as report:
            found = compress(
                run,
                self.input,
                split=self.split,
                batch_size=self.batch_size,
                step=self.step,
                report=report,
            )
        try:
            with replacing(out) as temporary:
                temporary.write_bytes(found.data)
        except OSError as error:
            raise InputError(f"{out}: cannot be written ({error.strerror or error}); choose another --out") from error
        n, size = len(found.codes), len(found.data)
        bits = f"{8 * size / n:.1f} bits each (-log2 p(z): {found.bits.mean():.1f})"
        print(f"{out}: {n:,} examples, {size:,} bytes, {bits}")
        for name, other in found.others.items():
            print(f"  {name} of the same images, without loss: {other:,} bytes, {other / size:.1f} times as many")
        # PSNR is of images, whose peak is 1.
        psnr = f", PSNR {-10 * np.log10(max(found.mse.mean(), 1e-12)):.1f} dB" if run.spec.x.kind == "image" else ""
        print(f"  what comes back differs by a squared error of {found.mse.mean():.4g}{psnr}")
        print(
            f"  after more training it is decompressed with --step {found.step}, the checkpoint that it was made with"
        )


@dataclass(frozen=True)
class Decompress:
    """Examples from a file that `compress` wrote, as the first stage reconstructs them."""

    run: tyro.conf.Positional[Path]
    """Run folder that compressed it."""
    input: tyro.conf.Positional[Path]
    """.vjc file."""
    out: str
    """Picture (.png, .pdf, .svg), arrays (.npz with images and codes, .npy), or a folder, ending with /, for one PNG
    per image."""
    dpi: Annotated[int | None, DPI] = None
    """Dots per inch of the picture (default: 100)."""
    pixels: Literal["mean", "mode"] = "mean"
    """What is written of p(x|z): its mean, or the most probable example."""
    step: int | Literal["best"] | None = None
    """Checkpoint (default: the newest)."""

    def __call__(self) -> None:
        from vae_jax.runs.run import Run

        run = Run.load(self.run)
        out = examples_out(self.out, run, "decoded", 0, self.dpi)
        from vae_jax.tasks.compressing import decompress

        found = decompress(run, self.input, pixels=self.pixels, step=self.step)
        made = found.pictures
        out = examples_out(self.out, run, "decoded", len(found.codes), self.dpi)
        if not write_rows(out, run, made.images):
            arrays = {"images": made.images, "codes": found.codes}
            write(out, arrays, made.figure, dpi=self.dpi, images=made.images, units=made.units)
