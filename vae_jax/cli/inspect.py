"""`sample`, `reconstruct`, `interpolate`, `traverse`: pictures of a run, or the same as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from vae_jax import spaces
from vae_jax.cli import unread
from vae_jax.cli.conditions import asked
from vae_jax.cli.images import at_least_one, chosen, first, shown_split
from vae_jax.cli.output import destination, write
from vae_jax.errors import InputError

if TYPE_CHECKING:
    from vae_jax.runs.run import Run
    from vae_jax.train import TrainState

PICTURES = (".png", ".npz")
MOST = 4096  # images in one PNG


@dataclass(frozen=True)
class Sample:
    """Images from the prior: z ~ p(z), then E[x|z]."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    out: Path | None = None
    """PNG grid, or arrays where it ends in .npz (default: RUN/figures/samples.png)."""
    n: int = 64
    """Images."""
    label: int | None = None
    """Class to draw, of a model that labels can be asked of (default: every class in turn)."""
    cond: tuple[float, ...] = ()
    """Values of the factors, or the vector, that the model is conditioned on."""
    prior: str | None = None
    """gmm, flow or two-stage: a density of codes fitted by `vae-jax fit-prior` (or the path of its .json)."""
    temperature: float = 1.0
    """Factor on the prior's standard deviation."""
    pixels: Literal["mean", "mode", "sample"] = "mean"
    """What is shown of p(x|z): its mean, the most probable image, or a draw."""
    seed: int = 0
    """Seed of the draws."""
    step: int | None = None
    """Checkpoint (default: the newest)."""

    def __call__(self) -> None:
        at_least_one("--n", self.n)
        if not self.temperature >= 0 or self.temperature == float("inf"):
            raise InputError(f"--temperature {self.temperature}: must be a number of 0 or more")
        out = _out(self.out, self.run, "samples" if self.prior is None else "samples_expost", self.n)
        run = _load(self.run)
        if self.prior is None:
            _needs_prior(run, "sample from; fit one with fit-prior, or try reconstruct or interpolate")
        state = run.restore(self.step)
        import jax

        from vae_jax.evaluation.codes import draw

        key = jax.random.key(seed(self.seed))
        told = asked(run, state, self.n, self.label, self.cond)
        looks: dict[str, Any] = {"temperature": self.temperature, "pixels": self.pixels}
        if self.prior is None:
            images = draw(run.model, state, key, self.n, cond=told, **looks)
        else:
            from vae_jax.tasks.fit_prior import draw_images

            images = draw_images(run, state, self.prior, key, self.n, **looks)

        def figure() -> Any:
            from vae_jax.figures import grid
            from vae_jax.figures.grid import fold

            note = "" if self.temperature == 1 else f", temperature {self.temperature:g}"
            note += "" if self.label is None else f", label {self.label}"
            shown = {"mean": "E[x|z]", "mode": "mode of p(x|z)", "sample": "x ~ p(x|z)"}[self.pixels]
            source = "p(z)" if self.prior is None else f"{Path(self.prior).stem} fitted to codes"
            return grid(fold(images, _side(self.n)), title=f"{name(run, state)}: samples, {shown}, z ~ {source}{note}")

        write(out, {"images": images}, figure)


@dataclass(frozen=True)
class Reconstruct:
    """Images beside their reconstructions E[x | E[z|x]]."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    out: Path | None = None
    """PNG grid, or arrays where it ends in .npz (default: RUN/figures/reconstructions.png)."""
    n: int = 32
    """Images: the first n of the split."""
    indices: tuple[int, ...] = ()
    """These images of the split instead."""
    split: str | None = None
    """train, validation or test (default: the one that the run evaluates)."""
    step: int | None = None
    """Checkpoint (default: the newest)."""

    def __call__(self) -> None:
        if self.indices:
            unread.refuse(self, "", "n")
        out = _out(self.out, self.run, "reconstructions", len(self.indices) or self.n)
        run = _load(self.run)
        split = shown_split(run, self.split)
        batch = chosen(run, split, self.indices) if self.indices else first(run, split, self.n)
        state = run.restore(self.step)
        import numpy as np

        from vae_jax.evaluation import decode_all, encode_all

        codes = encode_all(run.model, state, [batch])
        images, made = np.asarray(batch["x"]), decode_all(run.model, state, codes.mean, cond=codes.cond)
        mse = np.square(images - made).mean((1, 2, 3))

        def figure() -> Any:
            from vae_jax.figures import pairs

            title = f"{name(run, state)}: reconstructions, {split} split, mean squared error {mse.mean():.4f}"
            return pairs(images, made, title=title)

        write(out, {"index": codes.index, "images": images, "reconstructions": made, "mse": mse}, figure)


@dataclass(frozen=True)
class Interpolate:
    """Paths in latent space between pairs of images, decoded."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    out: Path | None = None
    """PNG grid, or arrays where it ends in .npz (default: RUN/figures/interpolations.png)."""
    indices: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7)
    """Images of the split: from the first to the second, from the third to the fourth, and so on."""
    steps: int = 10
    """Images on a path, both ends included; 2 or more."""
    path: Literal["linear", "spherical"] = "linear"
    """Straight, or along a great circle, which keeps the norm typical of a Gaussian prior."""
    split: str | None = None
    """train, validation or test (default: the one that the run evaluates)."""
    step: int | None = None
    """Checkpoint (default: the newest)."""

    def __call__(self) -> None:
        if self.steps < 2:
            raise InputError(f"--steps {self.steps}: a path has 2 images or more")
        if len(self.indices) < 2 or len(self.indices) % 2:
            raise InputError(f"--indices: {len(self.indices)} images do not make pairs; give an even number of them")
        out = _out(self.out, self.run, "interpolations", len(self.indices) // 2 * self.steps)
        run = _load(self.run)
        split = shown_split(run, self.split)
        batch = chosen(run, split, self.indices)
        state = run.restore(self.step)
        import numpy as np

        from vae_jax.evaluation import decode_all, encode_all, latents

        codes = encode_all(run.model, state, [batch])
        mean, cond = codes.mean, codes.cond
        z = latents.interpolate(mean[0::2], mean[1::2], self.steps, self.path)
        # What the model is told goes straight from that of one image to that of the other.
        told = None if cond is None else latents.interpolate(cond[0::2], cond[1::2], self.steps)
        images = decode_all(run.model, state, z, cond=told)

        def figure() -> Any:
            from vae_jax.figures import grid

            originals = np.asarray(batch["x"])
            rows = np.concatenate([originals[0::2, None], images, originals[1::2, None]], axis=1)
            labels = [f"{a} to {b}" for a, b in zip(self.indices[0::2], self.indices[1::2])]
            columns = ["image", *(f"{t:.2g}" for t in np.linspace(0, 1, self.steps)), "image"]
            title = f"{name(run, state)}: {self.path} interpolation between codes, {split} split"
            return grid(rows, title=title, rows=labels, columns=columns, xlabel="share of the way")

        write(out, {"index": np.reshape(self.indices, (-1, 2)), "codes": z, "images": images}, figure)


@dataclass(frozen=True)
class Traverse:
    """One latent dimension moved at a time; the others stay at the code of one image."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    out: Path | None = None
    """PNG grid, or arrays where it ends in .npz (default: RUN/figures/traversals.png)."""
    dims: tuple[int, ...] = ()
    """Latent dimensions, in this order (default: the 12 of largest KL, largest first)."""
    steps: int = 11
    """Values of each dimension."""
    reach: float = 2.5
    """Range: this many standard deviations of the prior either way (of the codes, for an autoencoder)."""
    quantiles: bool = False
    """Take the values at equal steps of probability of the codes instead (0.5 % to 99.5 %)."""
    index: int | None = None
    """Image of the split to start from (default: of 500 that stand for it, the one whose code is most central)."""
    split: str | None = None
    """train, validation or test (default: the one that the run evaluates)."""
    step: int | None = None
    """Checkpoint (default: the newest)."""

    def __call__(self) -> None:
        at_least_one("--steps", self.steps)
        if not 0 < self.reach < float("inf"):
            raise InputError(f"--reach {self.reach}: must be positive")
        if self.quantiles:
            unread.refuse(self, "--quantiles False", "reach")
        out = _out(self.out, self.run, "traversals", len(self.dims) * self.steps)
        run = _load(self.run)
        variables = spaces.variables(run.model.about.latents)
        size = len(variables)
        for d in self.dims:
            if not 0 <= d < size:
                raise InputError(f"--dims {d}: {run.path} has {size} latent dimensions; choose 0 to {size - 1}")
        split = shown_split(run, self.split)
        many = chosen(run, split, run.rows(split, 500).tolist())
        start = None if self.index is None else chosen(run, split, [self.index])
        state = run.restore(self.step)
        import jax

        from vae_jax.evaluation import decode_all, encode_all, evaluate, latents

        codes = encode_all(run.model, state, [many])
        result = evaluate(run.model, state, [many], key=jax.random.key(0))
        own = None if start is None else encode_all(run.model, state, [start])
        cond = codes.cond if own is None else own.cond
        walk = latents.walk(
            codes,
            result.kl_per_dim,
            dims=self.dims,
            base=None if own is None else own.mean[0],
            prior=run.prior_unit,
            reach=self.reach,
            steps=self.steps,
            quantiles=self.quantiles,
            blocks=variables,
        )
        # The image that is started from keeps its own features throughout.
        told = None if cond is None else cond[latents.centre(codes) if own is None else 0]
        images = decode_all(run.model, state, walk.codes, cond=told)

        def figure() -> Any:
            from vae_jax.figures import traversal_grid

            return traversal_grid(images, walk, title=f"{name(run, state)}: latent traversals, {split} split")

        arrays = {"dims": walk.dims, "values": walk.values, "codes": walk.codes, "images": images, "kl": walk.kl}
        write(out, arrays, figure)


def name(run: Run, state: TrainState) -> str:
    """Returns "beta_vae, step 6,000"."""
    return f"{run.experiment}, step {int(state.step):,}"


def seed(value: int) -> int:
    """Returns a seed in range, or raises InputError."""
    if not 0 <= value < 2**31:
        raise InputError(f"--seed {value}: must be in [0, 2^31)")
    return value


def _load(path: Path) -> Run:
    from vae_jax.runs.run import Run

    return Run.load(path)


def _needs_prior(run: Run, what: str) -> None:
    if run.model.prior is None:
        raise InputError(f"{run.path}: its model does not provide a prior to {what}")


def _out(out: Path | None, run: Path, stem: str, count: int) -> Path:
    path = destination(out, run / "figures" / f"{stem}.png", PICTURES)
    if path.suffix.lower() == ".png" and count > MOST:
        raise InputError(f"--out {path}: {count:,} images are too many for one picture; write them to a .npz file")
    return path


def _side(n: int) -> int:
    return max(8, round(n**0.5))
