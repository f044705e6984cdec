"""`vae-jax arithmetic RUN --from A --to B`: the difference of two mean codes, added to the codes of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from vae_jax.cli.images import at_least_one, chosen, shown_split
from vae_jax.cli.inspect import _load, _out, name
from vae_jax.cli.output import write
from vae_jax.errors import InputError, nearest

if TYPE_CHECKING:
    import numpy as np

    from vae_jax.runs.run import Run


@dataclass(frozen=True)
class Arithmetic:
    """Images of one label (or factor value) moved towards another: z + t (mean code of B - mean code of A)."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    from_: Annotated[int, tyro.conf.arg(name="from")]
    """Label that the images have, or value of the factor."""
    to: int
    """Label (or value) to go to."""
    factor: str | None = None
    """Factor that --from and --to are values of (default: the label)."""
    out: Path | None = None
    """PNG grid, or arrays where it ends in .npz (default: RUN/figures/arithmetic.png)."""
    n: int = 8
    """Images: the first n of the split with --from."""
    steps: int = 6
    """Images on each way, from the code itself (t = 0) to --strength."""
    strength: float = 1.0
    """The last t: how many differences are added."""
    learn: int = 10_000
    """Training examples whose codes give the means: the first ones, or some of every class of a sorted split."""
    split: str | None = None
    """train, validation or test (default: the one that the run evaluates)."""
    step: int | None = None
    """Checkpoint (default: the newest)."""

    def __call__(self) -> None:
        at_least_one("--n", self.n)
        at_least_one("--learn", self.learn)
        if self.steps < 2:
            raise InputError(f"--steps {self.steps}: a path has 2 images or more")
        if not abs(self.strength) < float("inf"):
            raise InputError(f"--strength {self.strength}: must be a number")
        if self.from_ == self.to:
            raise InputError(f"--to {self.to}: is where --from starts; choose two values")
        out = _out(self.out, self.run, "arithmetic", self.n * (self.steps + 1))
        run = _load(self.run)
        split = shown_split(run, self.split)
        state = run.restore(self.step)
        import numpy as np

        from vae_jax.evaluation import decode_all, encode_all, latents

        known = encode_all(run.model, state, run.batches("train", min(500, self.learn), self.learn))
        values = self._values(run, known.extra)
        for option, value in (("--from", self.from_), ("--to", self.to)):
            if value not in values:
                raise self._absent(option, value, values, run.source("train").size)
        direction = latents.attribute(known.mean, values, self.from_, self.to)
        if not np.isfinite(direction).all():
            raise InputError(f"{run.path}: its codes are not finite; lower the learning rate")
        rows: list[int] = []
        for shown in run.batches(split, 500):
            rows += np.asarray(shown["index"])[self._values(run, shown) == self.from_].tolist()
            if len(rows) >= self.n:
                break
        if len(rows) < self.n:
            raise InputError(
                f"--n {self.n}: only {len(rows)} images of the {split} split have {self.from_}; ask for less"
            )
        batch = chosen(run, split, rows[: self.n])
        codes = encode_all(run.model, state, [batch])
        shares = np.linspace(0.0, self.strength, self.steps)
        z = codes.mean[:, None] + shares[:, None] * direction
        told = None if codes.cond is None else codes.cond[:, None]
        images = decode_all(run.model, state, z, cond=told)
        what = "label" if self.factor is None else self.factor

        def figure() -> Any:
            from vae_jax.figures import grid

            originals = np.asarray(batch["x"])[:, None]
            return grid(
                np.concatenate([originals, images], 1),
                title=f"{name(run, state)}: {what} {self.from_} to {self.to} by mean codes, {split} split",
                rows=[str(int(i)) for i in codes.index],
                columns=["image", *(f"{t:.2g}" for t in shares)],
                xlabel="differences of mean codes added",
            )

        arrays = {"index": codes.index, "direction": direction, "shares": shares, "codes": z, "images": images}
        write(out, arrays, figure)

    def _absent(self, option: str, value: int, values: np.ndarray, size: int) -> InputError:
        """Returns the error for a value that none of the examples `values` [N] has, of a training split of `size`."""
        import numpy as np

        there = ", ".join(map(str, np.unique(values)))
        if len(values) < size:
            return InputError(
                f"{option} {value}: none of the {len(values):,} training examples that were read has it; choose of "
                f"{there}, or read all with --learn {size}"
            )
        return InputError(f"{option} {value}: no training example has it; choose of {there}")

    def _values(self, run: Run, batch: Mapping[str, Any]) -> np.ndarray:
        """Returns what --from and --to are values of, int [N].

        Raises:
          InputError: the data have no labels, or no such factor.
        """
        import numpy as np

        info = run.source("train").info
        if self.factor is None:
            if "label" not in batch:
                fix = f"name one of its factors with --factor ({', '.join(info.factor_names)})"
                raise InputError(
                    f"--from {self.from_}: the data set {info.name!r} has no labels"
                    + (f"; {fix}" if info.factor_names else " and no factors")
                )
            return np.asarray(batch["label"])
        if self.factor not in info.factor_names:
            raise InputError(
                f"--factor {self.factor}: the data set {info.name!r} has "
                + (f"none such; {nearest(self.factor, info.factor_names)}" if info.factor_names else "no factors")
            )
        return np.asarray(batch["factors"])[:, info.factor_names.index(self.factor)]
