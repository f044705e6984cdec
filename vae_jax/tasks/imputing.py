"""Missing values of the user's examples, filled in by a run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from vae_jax.data import SPLITS, memory, numbers
from vae_jax.errors import InputError, option, shown
from vae_jax.evaluation.imputation import impute_all
from vae_jax.files import bounded
from vae_jax.runs.examples import check_kind
from vae_jax.runs.inputs import user_batches
from vae_jax.runs.run import Run
from vae_jax.spec import users
from vae_jax.tasks import given, tables
from vae_jax.train import TrainState

IMAGES = "images"


class Imputed(NamedTuple):
    """Examples with their missing values filled in.

    Attributes:
      x: the examples as they were given, of their shape and type, with E[x_mis | x_obs] where they were missing; of a
        table, its columns by name.
      samples: [S, *x.shape], the same with a draw of p(x_mis | x_obs) in each of S copies; a tuple of tables.
      bound: log 1/K sum_k p(x_obs, z_k) / q(z_k|x_obs) of each example, at most log p(x_obs) on average, nats [N].
      arrays: what the examples came with (`labels`, `mask`, ...), by name.
      name: of the array that the examples were in.
    """

    x: Any
    samples: Any
    bound: np.ndarray
    arrays: dict[str, np.ndarray]
    name: str = IMAGES


def impute(
    run: Run | Path | str,
    x: Any,
    mask: Any = None,
    *,
    k: int = 1000,
    samples: int = 0,
    seed: int = 0,
    batch_size: int = 250,
    step: int | Literal["best"] | None = None,
    state: TrainState | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Imputed:
    """Fills in missing values with a run: E[x_mis | x_obs] by importance sampling (arXiv:1812.02633, eq. 11).

    Args:
      run: a run, or the path of its folder. It may have been trained on complete data.
      x: images [N, H, W] or [N, H, W, C] with NaN where a value is missing, or of any type with a `mask`; series or
        rows of numbers in the same way, for a run of these; a dict of arrays (`images`, `mask`, and what a conditional
        model needs); or the path of an .npy or .npz. For a run of a table, columns by name (None or NaN is missing), or
        the path of a .csv or .parquet.
      mask: bool, of the shape of x or without its last axis (whole pixels or times), True where x is observed; None
        where NaN says it.
      k: importance samples per example, K: the larger, the closer to the model's own mean.
      samples: copies with draws in place of the mean, S: multiple imputation by sampling importance resampling.
      seed: of all noise.
      batch_size: examples at a time; no number depends on it.
      step: of the checkpoint; None for the newest.
      state: looks at this state instead of a checkpoint.
      report: called with (examples done, examples in all).

    Returns:
      the examples in the form in which they were given. What was observed is unchanged, bit for bit.

    Raises:
      InputError: nothing is missing, or examples that cannot be read or that this model cannot take; an argument out of
        range.
    """
    run, seed, batch_size = given.opened(run), given.seed(seed), given.at_least("batch_size", batch_size)
    samples, k = given.at_least("samples", samples, 0), given.importance(k)
    if run.spec.columns:
        return _table(run, x, mask, k, samples, seed, batch_size, given.restored(run, step, state), report)
    held = _arrays(run, x, mask)
    batches, source = user_batches(run, held, "train", batch_size)
    if not source.info.mask:
        raise InputError(
            f"{_word()}: has no missing values, so there is nothing to fill in; save NaN in their place, or a bool "
            "array mask that is True where a value is observed"
        )
    seen: list[np.ndarray] = []

    def noted() -> Iterator[Mapping[str, Any]]:
        for batch in batches:
            seen.append(np.asarray(batch["mask"]))
            yield batch

    state = given.restored(run, step, state)
    key = jax.random.key(seed)
    done = functools.partial(_tell, report, source.size)
    found = impute_all(run.model, state, noted(), key=key, k=k, draws=samples, report=done)
    name = _main(held)
    holed = _Holed(held[name], np.concatenate(seen), run, source.info.values == "grey")
    copies = [holed.filled(draw) for draw in found.draws]
    drawn = np.stack(copies) if copies else np.zeros((0, *holed.x.shape), holed.x.dtype)
    rest = {key: value for key, value in held.items() if key != name}
    return Imputed(holed.filled(found.mean), drawn, found.bound, rest, name)


def _main(held: Mapping[str, np.ndarray]) -> str:
    """Returns the name of the examples among arrays that were read already."""
    return IMAGES if IMAGES in held else numbers.main(held) or IMAGES


def _table(
    run: Run, x: Any, mask: Any, k: int, samples: int, seed: int, batch_size: int, state: TrainState, report: Any
):
    """Returns a table with its empty cells filled in, as `impute` does of images."""
    if mask is not None:
        raise InputError("mask: empty cells say what is missing of a table; leave it out")
    what = f"{_word()} {x}" if isinstance(x, str | Path) else _word()
    options: dict[str, Any] = {"k": k, "samples": samples, "seed": seed, "batch_size": batch_size}
    found = tables.fill(run, x, what, **options, state=state, report=report)
    return Imputed(found.x, found.samples, found.bound, {})


def _tell(report: Callable[[int, int], None], total: int, done: int) -> None:
    report(done, total)


def _word() -> str:
    return option("x", flag="input")


def _arrays(run: Run, x: Any, mask: Any) -> dict[str, np.ndarray]:
    """Returns the arrays of the examples by name, `images` among them, exactly as they were given."""
    if memory.is_arrays(x):
        held = memory.named(x, "x")
    else:
        path = Path(x).expanduser()
        check_kind(run, path, f"{_word()} {shown(x)}")
        if not path.is_file() or path.suffix.lower() not in (".npy", ".npz"):
            raise InputError(
                f"{_word()} {x}: is no .npy or .npz file, in which missing values can be marked; save an array with NaN"
            )
        held = {name or IMAGES: value for name, value in bounded.arrays(path, option=_word()).items()}
    if parts := [name for name in held if name.removesuffix(f"_{IMAGES}") in SPLITS]:
        raise InputError(
            f"{_word()}: holds splits ({', '.join(parts)}), of which one is filled in at a time; save numpy.savez("
            f"'part.npz', images=stored[{parts[0]!r}])"
        )
    if mask is not None:
        if "mask" in held:
            raise InputError("mask: the examples come with an array mask already; leave one of them out")
        held["mask"] = np.asarray(mask)
    return held


class _Holed(NamedTuple):
    """Images, series or rows with missing values.

    Attributes:
      x: as they were given, of any type that is read.
      seen: what is observed, bool [N, *x.shape] of the run.
      run: that fills them in.
      levels: whether they were read as gray levels, as integers and some floats are.
    """

    x: np.ndarray
    seen: np.ndarray
    run: Run
    levels: bool

    def filled(self, estimate: np.ndarray) -> np.ndarray:
        """Returns the examples with the estimates where nothing was observed.

        Args:
          estimate: in the units of the model, of the shape of `seen`; in [0, 1] for images.
        """
        values, kind = estimate.reshape(self.x.shape), self.x.dtype.kind
        units, are_pictures = self.run.spec.units, self.run.spec.x.kind == "image"
        # 1. In the user's units. Booleans are 0 and 1 to every model of pictures.
        if kind != "b" and self.levels:
            # Dequantized levels v are (v + u) / 256 to the model, others v / 255.
            values = np.clip(values * 256.0 - 0.5 if self.run.config.data.dequantize else values * 255.0, 0, 255)
        elif not (kind == "b" and are_pictures):
            values = users(values, units)
        # 2. In the user's type, which the nearest of its numbers is to be taken from.
        if kind == "b":
            values = values >= 0.5
        elif kind in "iu":
            limits = np.iinfo(self.x.dtype)
            low, high = units.range if are_pictures and units is not None else (limits.min, limits.max)
            values = np.clip(np.rint(values), low, high)
        return np.where(self.seen.reshape(self.x.shape), self.x, values.astype(self.x.dtype))
