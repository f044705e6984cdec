"""`sample`, `reconstruct`, `interpolate`, `traverse`: pictures of a run, or the same as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vae_jax.cli import unread
from vae_jax.cli.output import check_count, say, write
from vae_jax.cli.tables import examples_out, write_rows
from vae_jax.options.ranges import DPI, SEED, AtLeast, NotNegative, Positive


@dataclass(frozen=True)
class Sample:
    """New examples from the prior: z ~ p(z), then E[x|z]."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    out: str | None = None
    """Picture (.png, .pdf, .svg), arrays (.npz, .npy), or a folder, ending with /, for one PNG per image; those of
    --label go into a folder of its name in it (default: RUN/figures/samples.png); of a table .csv (default) or
    .parquet; of other rows of numbers .npz (default)."""
    dpi: Annotated[int | None, DPI] = None
    """Dots per inch of the picture (default: 100)."""
    n: Annotated[int, AtLeast(1)] = 64
    """Examples."""
    label: int | None = None
    """Class to draw, of a model conditioned on labels (default: every class in turn)."""
    cond: tuple[float, ...] = ()
    """Values of the factors, or the vector, that the model is conditioned on."""
    prior: str | None = None
    """gmm, flow or two-stage: a density of codes fitted by `vae-jax fit-prior` (or the path of its .json)."""
    temperature: Annotated[float, NotNegative()] = 1.0
    """Factor on the prior's standard deviation."""
    pixels: Literal["mean", "mode", "sample"] | None = None
    """What is shown of p(x|z): its mean, the most probable example, or a draw (default: mean; of a table, a draw)."""
    seed: Annotated[int, SEED] = 0
    """Seed of the draws."""
    step: int | Literal["best"] | None = None
    """Checkpoint (default: the newest)."""
    guidance: float | None = None
    """Second stage with a condition: s of p(z) (p(z|c) / p(z))^s; 1 is p(z|c) itself, 2 makes classes clearer."""
    top_k: int | None = None
    """Second stage of codes: draw among the k most probable codes alone."""
    top_p: float | None = None
    """Second stage of codes: draw among the fewest codes whose probabilities sum to p."""
    passes: int | None = None
    """Second stage that draws many codes at once, or solves an equation: passes of its network."""
    prompt: Path | None = None
    """Second stage of codes: those of images, as `vae-jax encode` writes them, that samples begin with."""
    prompt_length: int | None = None
    """Number of codes to take from --prompt (default: half of them; of one grid its upper half)."""

    def __call__(self) -> None:
        stem = "samples" if self.prior is None else "samples_expost"
        from vae_jax.runs.run import Run

        run = Run.load(self.run)
        out = examples_out(self.out, run, stem, self.n, self.dpi, label=self.label)
        from vae_jax.tasks import choosing
        from vae_jax.tasks.sampling import samples

        found = samples(
            run,
            self.n,
            label=self.label,
            cond=self.cond,
            prior=self.prior,
            temperature=self.temperature,
            pixels=self.pixels,
            seed=self.seed,
            step=self.step,
            **{name: value for name in choosing.NAMES if (value := getattr(self, name)) is not None},
        )
        if not write_rows(out, run, found.images):
            write(out, {"images": found.images}, found.figure, dpi=self.dpi, units=found.units)


@dataclass(frozen=True)
class Reconstruct:
    """Examples beside their reconstructions E[x | E[z|x]]."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    input: tuple[str, ...] = ()
    """Your own examples, all of them: images, a folder of images, .npy, .npz, a table, or a data set name (default: the
    run's own data)."""
    out: str | None = None
    """Picture (.png, .pdf, .svg), arrays (.npz, .npy), or a folder, ending with /, for one PNG of each reconstruction
    (default: RUN/figures/reconstructions.png); of a table .csv (default) or .parquet; of other rows of numbers .npz
    (default)."""
    dpi: Annotated[int | None, DPI] = None
    """Dots per inch of the picture (default: 100)."""
    n: Annotated[int | None, AtLeast(1)] = None
    """Examples: the first n of the split (default: 32, or all of fewer)."""
    indices: tuple[int, ...] = ()
    """These examples of the split instead."""
    split: str | None = None
    """train, validation or test (default: the one that the run evaluates); of --input, where that holds splits."""
    step: int | Literal["best"] | None = None
    """Checkpoint (default: the newest)."""

    def __call__(self) -> None:
        if self.indices or self.input:
            unread.refuse(self, "", "n")
        from vae_jax.runs.run import Run

        run = Run.load(self.run)
        out = examples_out(self.out, run, "reconstructions", len(self.indices) or self.n or 1, self.dpi)
        from vae_jax.figures.folder import numbered
        from vae_jax.tasks.reconstruction import pairs

        x = self.input or None
        found = pairs(run, x, n=self.n, indices=self.indices, split=self.split, step=self.step)
        arrays = {"index": found.index, "images": found.x, "reconstructions": found.reconstructions, "mse": found.mse}
        if not write_rows(out, run, found.reconstructions):
            write(
                check_count(out, len(found.x)),
                arrays,
                found.figure,
                dpi=self.dpi,
                images=found.reconstructions,
                names=numbered(len(found.x), found.names),
                units=found.units,
            )
        say(found.note)


@dataclass(frozen=True)
class Interpolate:
    """Paths in latent space between pairs of examples, decoded."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    input: tuple[str, ...] = ()
    """Your own examples, two or more: images, a folder of images, .npy, .npz, a table, or a data set name; from each to
    the next (default: the run's own data)."""
    out: str | None = None
    """Picture (.png, .pdf, .svg), arrays (.npz, .npy), or a folder, ending with /, for one PNG per image
    (default: RUN/figures/interpolations.png); of a table .csv (default) or .parquet; of other rows of numbers, and of
    series, .npz (default)."""
    dpi: Annotated[int | None, DPI] = None
    """Dots per inch of the picture (default: 100)."""
    indices: tuple[int, ...] = ()
    """Examples of the split: from the first to the second, from the third to the fourth, and so on (default: the first
    8, or the pairs of fewer)."""
    steps: Annotated[int, AtLeast(2)] = 10
    """Examples on a path, both ends included."""
    path: Literal["linear", "spherical"] = "linear"
    """Straight, or along a great circle, which keeps the norm typical of a Gaussian prior."""
    split: str | None = None
    """train, validation or test (default: the one that the run evaluates); of --input, where that holds splits."""
    step: int | Literal["best"] | None = None
    """Checkpoint (default: the newest)."""

    def __call__(self) -> None:
        count = (len(self.indices) // 2 or 1) * self.steps
        from vae_jax.runs.run import Run

        run = Run.load(self.run)
        out = examples_out(self.out, run, "interpolations", count, self.dpi)
        from vae_jax.tasks.paths import interpolate

        x = self.input or None
        options = {"steps": self.steps, "path": self.path, "split": self.split, "step": self.step}
        found = interpolate(run, self.indices, x=x, **options)
        if not write_rows(out, run, found.images):
            paths, steps = found.images.shape[:2]
            write(
                check_count(out, paths * steps),
                {"index": found.index, "codes": found.codes, "images": found.images},
                found.figure,
                dpi=self.dpi,
                images=found.images.reshape(-1, *found.images.shape[2:]),
                names=[f"{row:03}_{column:03}.png" for row in range(paths) for column in range(steps)],
                units=found.units,
            )
        say(found.note)


@dataclass(frozen=True)
class Traverse:
    """One latent dimension moved at a time; the others stay at the code of one example."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    input: tuple[str, ...] = ()
    """Your own example to start from: an image, or of a folder, .npy, .npz, table or data set the one that --index
    names."""
    out: Path | None = None
    """Picture (.png, .pdf, .svg) or arrays (.npz, .npy) (default: RUN/figures/traversals.png); of a
    table .csv (default) or .parquet; of other rows of numbers, and of series, .npz (default)."""
    dpi: Annotated[int | None, DPI] = None
    """Dots per inch of the picture (default: 100)."""
    dims: tuple[int, ...] = ()
    """Latent dimensions, in this order (default: of those with a KL of 0.01 nats or more the 12 of largest KL, largest
    first)."""
    steps: Annotated[int, AtLeast(1)] = 11
    """Values of each dimension."""
    reach: Annotated[float, Positive()] = 2.5
    """Range: this many standard deviations of the prior either way (of the codes, for an autoencoder)."""
    quantiles: bool = False
    """Take the values at equal steps of probability of the codes instead (0.5 % to 99.5 %)."""
    index: int | None = None
    """Example of the split, or of --input, to start from (default: of 500 that stand for the split, the one whose code
    is most central)."""
    split: str | None = None
    """train, validation or test (default: the one that the run evaluates); of --input, where that holds splits."""
    step: int | Literal["best"] | None = None
    """Checkpoint (default: the newest)."""

    def __call__(self) -> None:
        if self.quantiles:
            unread.refuse(self, "--quantiles False", "reach")
        count = len(self.dims) * self.steps
        from vae_jax.runs.run import Run

        run = Run.load(self.run)
        out = examples_out(self.out, run, "traversals", count, self.dpi, folder=False)
        from vae_jax.tasks.traversal import traverse

        found = traverse(
            run,
            self.dims,
            steps=self.steps,
            reach=self.reach,
            quantiles=self.quantiles,
            index=self.index,
            x=self.input or None,
            split=self.split,
            step=self.step,
        )
        walk = found.walk
        arrays = {"dims": walk.dims, "values": walk.values, "codes": walk.codes, "images": found.images, "kl": walk.kl}
        if not write_rows(out, run, found.images):
            write(out, arrays, found.figure, dpi=self.dpi)
        if walk.unused:
            print(f"{walk.words_for_unused}; name dimensions with --dims to see any of them")
