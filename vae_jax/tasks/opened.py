"""An opened run: a run folder with what it can do as methods."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vae_jax.errors import InputError, choice
from vae_jax.evaluation import Codes
from vae_jax.runs.run import Run
from vae_jax.tasks import codes, compressing, imputing, paths, reconstruction, sampling, scoring, tables, traversal
from vae_jax.train import TrainState

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class OpenRun(Run):
    """A run whose newest checkpoint is read once and looked at by every method.

    Every method of this class has the options of the function of its name in `vae_jax`; `step=` reads another
    checkpoint. The `plot_...` methods return matplotlib figures, which a notebook shows.
    """

    @functools.cached_property
    def state(self) -> TrainState:
        """The newest checkpoint that can be read."""
        return self.restore()

    def sample(self, n: int = 64, **options: Any) -> np.ndarray:
        """Draws n examples float32 [n, *x.shape]; `vae_jax.sample` describes the options."""
        return sampling.sample(self, n, **self._newest(options))

    def encode(self, x: Any, **options: Any) -> Codes:
        """Encodes examples; `vae_jax.encode` describes the options and the result."""
        return codes.encode(self, x, **self._newest(options))

    def decode(self, z: Any, **options: Any) -> np.ndarray:
        """Decodes codes to float32 [N, *x.shape]; `vae_jax.decode` describes the options."""
        return codes.decode(self, z, **self._newest(options))

    def reconstruct(self, x: Any = None, **options: Any) -> np.ndarray:
        """Returns E[x | E[z|x]], float32 [N, *x.shape]; `vae_jax.reconstruct` describes the options."""
        return reconstruction.reconstruct(self, x, **self._newest(options))

    def score(self, x: Any, **options: Any) -> scoring.Scores:
        """Scores examples one by one; `vae_jax.score` describes the options and the result."""
        return scoring.score(self, x, **self._newest(options))

    def impute(self, x: Any, mask: Any = None, **options: Any) -> imputing.Imputed:
        """Fills in missing values; `vae_jax.impute` describes the options and the result."""
        return imputing.impute(self, x, mask, **self._newest(options))

    def compress(self, x: Any, **options: Any) -> compressing.Compressed:
        """Compresses examples; `vae_jax.compress` describes the options and the result."""
        return compressing.compress(self, x, **self._newest(options))

    def decompress(self, data: Any, **options: Any) -> compressing.Decompressed:
        """Decompresses examples; `vae_jax.decompress` describes the options and the result."""
        return compressing.decompress(self, data, **self._newest(options))

    def table(self, x: Any) -> dict[str, np.ndarray]:
        """Returns encoded rows of a run of a table, such as samples, as columns by name, in their units and words."""
        return tables.rows(self, x)

    def interpolate(self, indices: Sequence[int] = (), **options: Any) -> paths.Interpolations:
        """Decodes paths between pairs of examples; `vae_jax.interpolate` describes the options."""
        return paths.interpolate(self, indices, **self._newest(options))

    def traverse(self, dims: Sequence[int] = (), **options: Any) -> traversal.Traversals:
        """Moves one latent dimension at a time; `vae_jax.traverse` describes the options."""
        return traversal.traverse(self, dims, **self._newest(options))

    def history(self, split: str = "train") -> dict[str, np.ndarray]:
        """Returns the metrics that were logged on a split: name -> float64 [lines], NaN where a line has none.

        `step` is among them: `plt.plot(h["step"], h["elbo"])`. Per-dimension metrics are [lines, dimensions].

        Raises:
          InputError: nothing was logged on this split.
        """
        from vae_jax.figures import read_metrics

        logged = [(line.get("split", "train"), line) for line in read_metrics(self.path)]
        there = list(dict.fromkeys(name for name, _ in logged)) or ["train"]
        if split not in there:
            raise InputError(f"split: nothing was logged on {split!r}; use {choice('split', there)}")
        lines = [line for name, line in logged if name == split]
        names = dict.fromkeys(name for line in lines for name in line if name != "split")
        found: dict[str, np.ndarray] = {}
        for name in names:
            values = [line.get(name) for line in lines]
            # A number that was not finite is null in JSON, as is a whole list of them.
            blank = next((np.full(len(v), np.nan) for v in values if isinstance(v, list)), np.nan)
            found[name] = np.array([blank if v is None else v for v in values], np.float64)
        return found

    def plot_samples(self, n: int = 64, **options: Any) -> Figure:
        """Returns a picture of n samples."""
        return sampling.samples(self, n, **self._newest(options)).figure()

    def plot_reconstructions(self, n: int | None = None, **options: Any) -> Figure:
        """Returns a picture of examples of the run's data beside their reconstructions."""
        return reconstruction.pairs(self, n=n, **self._newest(options)).figure()

    def plot_interpolations(self, indices: Sequence[int] = (), **options: Any) -> Figure:
        """Returns a picture of paths between pairs of examples."""
        return self.interpolate(indices, **options).figure()

    def plot_traversals(self, dims: Sequence[int] = (), **options: Any) -> Figure:
        """Returns a picture of latent traversals."""
        return self.traverse(dims, **options).figure()

    def plot_curves(self) -> Figure:
        """Returns the training curves: ELBO, distortion, rate, active units against the step."""
        from vae_jax.figures import curves, read_metrics

        return curves({self.experiment: read_metrics(self.path)}, title=self.experiment)

    def _newest(self, options: dict[str, Any]) -> dict[str, Any]:
        """Returns options with the state that was read before, where no other checkpoint is requested."""
        return options if options.get("step") is not None or "state" in options else {**options, "state": self.state}

    __hash__ = Run.__hash__


def load(path: Path | str | Run) -> OpenRun:
    """Opens a run folder.

    `run = load("runs/mine")`, then `run.sample(64)`, `run.encode(x)`, `run.decode(z)`, `run.reconstruct(x)`,
    `run.history()["elbo"]`, `run.plot_samples()`.

    Args:
      path: the folder (or a run, which is opened again).

    Raises:
      InputError: it is no run folder, or its `config.json` cannot be read.
    """
    from vae_jax.tasks.given import opened

    run = opened(path, "path")
    if isinstance(run, OpenRun):
        return run
    again = object.__new__(OpenRun)
    # With what the run has made and read already: its model, whose programs are compiled, and its data.
    again.__dict__.update(run.__dict__)
    return again
