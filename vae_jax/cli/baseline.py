"""`vae-jax baseline DATA`: a density with an exact likelihood, fitted and measured as VAEs are, for `compare`."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vae_jax.options.ranges import SEED, AtLeast, NotNegative


@dataclass(frozen=True)
class Baseline:
    """Fit a mixture of Gaussians or pPCA to pixels and measure log p(x) of held-out images, in a folder of its own."""

    data: tyro.conf.Positional[str]
    """Data set (see `vae-jax data list`), or a path: gray levels, not binary ones."""
    kind: str = "mog"
    """mog (mixture of Gaussians, EM) or ppca (probabilistic PCA, exact)."""
    components: Annotated[int, AtLeast(1)] = 10
    """Gaussians of the mixture, or principal components."""
    covariance: Literal["full", "diag"] = "full"
    """Covariance of each Gaussian of the mixture."""
    floor: Annotated[float, NotNegative()] = 1e-6
    """Added to the variances of the mixture; it matters where data are not dequantized and a pixel is constant."""
    iterations: Annotated[int, AtLeast(1)] = 100
    """EM iterations at most."""
    dequantize: bool = True
    """Add uniform noise of one gray level, (v + u) / 256; without it gray levels have no bits per pixel."""
    source: str | None = None
    """Folder or file with the data, as --data.source."""
    protocol: str = "standard"
    """Named split, as --data.protocol."""
    split: Literal["validation", "test"] = "test"
    """Held-out split that is measured."""
    limit: int | None = None
    """Fit only the first N training examples."""
    seed: Annotated[int, SEED] = 0
    """Seed of the start of EM, of the noise in training pixels and of the samples."""
    workdir: Path | None = None
    """Folder to write (default: runs/baseline-KIND-DATA, or the next free number after it)."""

    def __call__(self) -> None:
        from vae_jax.cli import unread
        from vae_jax.cli.evaluate import print_result
        from vae_jax.tasks.baseline import fit_baseline

        if self.kind == "ppca":
            unread.refuse(self, "--kind mog", "covariance", "floor", "iterations")
        path, result = fit_baseline(**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})
        print_result(result)
        if not result["protocol"]["converged"]:
            print(f"warning: EM stopped after {self.iterations} iterations, not converged; raise --iterations")
        print(f"written to {path}")
