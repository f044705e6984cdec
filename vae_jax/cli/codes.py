"""`encode` and `decode`: images to codes and back, through files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from vae_jax.cli import unread
from vae_jax.cli.conditions import asked, stored
from vae_jax.cli.images import at_least_one, shown_split
from vae_jax.cli.inspect import MOST, PICTURES, name, seed
from vae_jax.cli.output import counting, destination, write
from vae_jax.errors import InputError
from vae_jax.files import bounded

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Encode:
    """Images to codes: mean and log_var of q(z|x), with index and labels, in one .npz."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    input: str
    """.npy or .npz with images [N, H, W(, C)], a folder of images, a prepared folder, or a data set name."""
    out: Path
    """Arrays to write, .npz: mean, log_var, index, and z, labels, factors, cond where there are any."""
    split: str | None = None
    """Split of a data set, or of a file or folder that holds splits (default: that of the run, or the only one)."""
    draw: bool = False
    """Also write z, one sample of q(z|x) an image."""
    seed: int = 0
    """Seed of the samples."""
    batch_size: int = 500
    """Images at a time."""
    step: int | None = None
    """Checkpoint (default: the newest)."""

    def __call__(self) -> None:
        at_least_one("--batch-size", self.batch_size)
        if not self.draw:
            unread.refuse(self, "--draw True", "seed")
        out = destination(self.out, self.out, (".npz",))
        from vae_jax.runs.run import Run

        run = Run.load(self.run)
        from vae_jax.runs.inputs import user_batches

        batches, source = user_batches(
            run, self.input, shown_split(run, self.split), self.batch_size, asked=self.split is not None
        )
        state = run.restore(self.step)
        import jax

        from vae_jax.evaluation import encode_all

        key = jax.random.key(seed(self.seed)) if self.draw else None
        with counting("encoding") as report:
            codes = encode_all(run.model, state, batches, key=key, report=lambda seen: report(seen, source.size))
        labels = {"labels" if key == "label" else key: value for key, value in codes.extra.items()}
        arrays = {"mean": codes.mean, "log_var": codes.log_var, "z": codes.z, "index": codes.index}
        told = {} if codes.cond is None else {"cond": codes.cond}
        write(out, arrays | labels | told)


@dataclass(frozen=True)
class Decode:
    """Codes to images."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    input: Path
    """.npz with `mean` or `z` [N, D], as `encode` writes it, or .npy [N, D]."""
    out: Path
    """PNG grid, or arrays where it ends in .npz."""
    array: str | None = None
    """Array of the .npz to decode (default: `mean`, else `z`, else the only one)."""
    pixels: Literal["mean", "mode", "sample"] = "mean"
    """What is written of p(x|z): its mean, the most probable image, or a draw."""
    label: int | None = None
    """Class to decode as, of a conditional model (default: what the file's array `cond` says of each code)."""
    cond: tuple[float, ...] = ()
    """Values of the factors, or the vector, that the model is conditioned on."""
    seed: int = 0
    """Seed of the draws."""
    step: int | None = None
    """Checkpoint (default: the newest)."""

    def __call__(self) -> None:
        if self.pixels != "sample":
            unread.refuse(self, "--pixels sample", "seed")
        out = destination(self.out, self.out, PICTURES)
        from vae_jax.runs.run import Run

        run = Run.load(self.run)
        z = read_codes(self.input, self.array, run.config.model.latent_dim)
        if out.suffix.lower() == ".png" and len(z) > MOST:
            raise InputError(f"--out {out}: {len(z):,} images are too many for one picture; write them to a .npz file")
        state = run.restore(self.step)
        import jax

        from vae_jax.evaluation import decode_all

        told = asked(run, state, len(z), self.label, self.cond)
        if told is None:
            told = stored(run, state, open_arrays(self.input), len(z))
        key = jax.random.key(seed(self.seed))
        images = decode_all(run.model, state, z, cond=told, pixels=self.pixels, key=key)

        def figure() -> Any:
            from vae_jax.figures import fold, grid

            title = f"{name(run, state)}: {len(z):,} codes of {self.input.name}, decoded"
            return grid(fold(images, max(8, round(len(z) ** 0.5))), title=title)

        write(out, {"images": images}, figure)


def read_codes(path: Path, array: str | None, width: int) -> np.ndarray:
    """Returns codes float32 [N, D] from a file.

    Raises:
      InputError: the file is missing or no such file, or its codes have another width, or NaN or Inf.
    """
    import numpy as np

    held = open_arrays(path)
    chosen = _which(path, array, list(held))
    z = held[chosen]
    if z.ndim != 2 or z.dtype.kind not in "fiu" or not len(z):
        raise InputError(f"--input {path}: {chosen} is {z.dtype} {z.shape}; codes are numbers [N, {width}], N >= 1")
    if z.shape[1] != width:
        raise InputError(
            f"--input {path}: {chosen} has codes of width {z.shape[1]}, but the model has {width} latent dimensions; "
            "encode with the same run"
        )
    bad = ~np.isfinite(z).all(1)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise InputError(f"--input {path}: {int(bad.sum())} codes hold NaN or Inf, first row {first}; remove them")
    return z.astype(np.float32)


def open_arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an .npz, or the one of an .npy as `codes`.

    Raises:
      InputError: the file is missing, or cannot be read.
    """
    if not path.is_file():
        raise InputError(f"--input {path}: no such file; codes are written by `vae-jax encode`")
    if path.suffix.lower() not in (".npz", ".npy"):
        raise InputError(f"--input {path}: neither .npz nor .npy; codes are written by `vae-jax encode`")
    return {name or "codes": value for name, value in bounded.arrays(path, option="--input").items()}


def _which(path: Path, array: str | None, held: list[str]) -> str:
    if array is not None:
        if array not in held:
            raise InputError(f"--array {array}: {path} has no such array; it has {', '.join(held) or 'none'}")
        return array
    found = [name for name in ("mean", "z") if name in held] or (held if len(held) == 1 else [])
    if not found:
        raise InputError(f"--input {path}: no array `mean` or `z` (it has {', '.join(held) or 'none'}); use --array")
    return found[0]
