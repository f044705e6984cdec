"""`sample`, `reconstruct`, `interpolate`, `traverse`: pictures of a run, or the same as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vae_jax.cli import unread
from vae_jax.cli.output import write
from vae_jax.cli.tables import examples_out, write_rows
from vae_jax.options.ranges import SEED, AtLeast, NotNegative, Positive


@dataclass(frozen=True)
class Sample:
    """Images from the prior: z ~ p(z), then E[x|z]."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    out: Path | None = None
    """PNG grid, or arrays where it ends in .npz or .npy (default: RUN/figures/samples.png); of a table .csv (default)
    or .parquet."""
    n: Annotated[int, AtLeast(1)] = 64
    """Images."""
    label: int | None = None
    """Class to draw, of a model conditioned on labels (default: every class in turn)."""
    cond: tuple[float, ...] = ()
    """Values of the factors, or the vector, that the model is conditioned on."""
    prior: str | None = None
    """gmm, flow or two-stage: a density of codes fitted by `vae-jax fit-prior` (or the path of its .json)."""
    temperature: Annotated[float, NotNegative()] = 1.0
    """Factor on the prior's standard deviation."""
    pixels: Literal["mean", "mode", "sample"] | None = None
    """What is shown of p(x|z): its mean, the most probable image, or a draw (default: mean; of a table, a draw)."""
    seed: Annotated[int, SEED] = 0
    """Seed of the draws."""
    step: int | Literal["best"] | None = None
    """Checkpoint (default: the newest)."""

    def __call__(self) -> None:
        out = examples_out(self.out, self.run, "samples" if self.prior is None else "samples_expost", self.n)
        from vae_jax.tasks.sampling import samples

        found = samples(
            self.run,
            self.n,
            label=self.label,
            cond=self.cond,
            prior=self.prior,
            temperature=self.temperature,
            pixels=self.pixels,
            seed=self.seed,
            step=self.step,
        )
        if not write_rows(out, self.run, found.images):
            write(out, {"images": found.images}, found.figure)


@dataclass(frozen=True)
class Reconstruct:
    """Images beside their reconstructions E[x | E[z|x]]."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    out: Path | None = None
    """PNG grid, or arrays where it ends in .npz or .npy (default: RUN/figures/reconstructions.png); of a table .csv
    (default) or .parquet."""
    n: Annotated[int, AtLeast(1)] = 32
    """Images: the first n of the split."""
    indices: tuple[int, ...] = ()
    """These images of the split instead."""
    split: str | None = None
    """train, validation or test (default: the one that the run evaluates)."""
    step: int | Literal["best"] | None = None
    """Checkpoint (default: the newest)."""

    def __call__(self) -> None:
        if self.indices:
            unread.refuse(self, "", "n")
        out = examples_out(self.out, self.run, "reconstructions", len(self.indices) or self.n)
        from vae_jax.tasks.reconstruction import pairs

        found = pairs(self.run, n=self.n, indices=self.indices, split=self.split, step=self.step)
        arrays = {"index": found.index, "images": found.x, "reconstructions": found.reconstructions, "mse": found.mse}
        if not write_rows(out, self.run, found.reconstructions):
            write(out, arrays, found.figure)


@dataclass(frozen=True)
class Interpolate:
    """Paths in latent space between pairs of images, decoded."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    out: Path | None = None
    """PNG grid, or arrays where it ends in .npz or .npy (default: RUN/figures/interpolations.png)."""
    indices: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7)
    """Images of the split: from the first to the second, from the third to the fourth, and so on."""
    steps: Annotated[int, AtLeast(2)] = 10
    """Images on a path, both ends included."""
    path: Literal["linear", "spherical"] = "linear"
    """Straight, or along a great circle, which keeps the norm typical of a Gaussian prior."""
    split: str | None = None
    """train, validation or test (default: the one that the run evaluates)."""
    step: int | Literal["best"] | None = None
    """Checkpoint (default: the newest)."""

    def __call__(self) -> None:
        out = examples_out(self.out, self.run, "interpolations", len(self.indices) // 2 * self.steps)
        from vae_jax.tasks.paths import interpolate

        found = interpolate(self.run, self.indices, steps=self.steps, path=self.path, split=self.split, step=self.step)
        if not write_rows(out, self.run, found.images):
            write(out, {"index": found.index, "codes": found.codes, "images": found.images}, found.figure)


@dataclass(frozen=True)
class Traverse:
    """One latent dimension moved at a time; the others stay at the code of one image."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    out: Path | None = None
    """PNG grid, or arrays where it ends in .npz or .npy (default: RUN/figures/traversals.png)."""
    dims: tuple[int, ...] = ()
    """Latent dimensions, in this order (default: the 12 of largest KL, largest first)."""
    steps: Annotated[int, AtLeast(1)] = 11
    """Values of each dimension."""
    reach: Annotated[float, Positive()] = 2.5
    """Range: this many standard deviations of the prior either way (of the codes, for an autoencoder)."""
    quantiles: bool = False
    """Take the values at equal steps of probability of the codes instead (0.5 % to 99.5 %)."""
    index: int | None = None
    """Image of the split to start from (default: of 500 that stand for it, the one whose code is most central)."""
    split: str | None = None
    """train, validation or test (default: the one that the run evaluates)."""
    step: int | Literal["best"] | None = None
    """Checkpoint (default: the newest)."""

    def __call__(self) -> None:
        if self.quantiles:
            unread.refuse(self, "--quantiles False", "reach")
        out = examples_out(self.out, self.run, "traversals", len(self.dims) * self.steps)
        from vae_jax.tasks.traversal import traverse

        found = traverse(
            self.run,
            self.dims,
            steps=self.steps,
            reach=self.reach,
            quantiles=self.quantiles,
            index=self.index,
            split=self.split,
            step=self.step,
        )
        walk = found.walk
        arrays = {"dims": walk.dims, "values": walk.values, "codes": walk.codes, "images": found.images, "kl": walk.kl}
        if not write_rows(out, self.run, found.images):
            write(out, arrays, found.figure)
