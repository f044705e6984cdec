"""`vae-jax report RUN [RUN ...]`: what there is to know of runs, in one HTML file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vae_jax.errors import InputError
from vae_jax.options.ranges import SEED
from vae_jax.pages.plane import Map


@dataclass(frozen=True)
class Report:
    """One self-contained HTML file on a run, or on several side by side: numbers, curves, pictures, latent map, config.

    It loads nothing from outside and needs no script. Metrics are those of eval.json; a run without one, or with
    one of another step, is measured for the report with the evaluation settings of its config. Nothing else is written.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    out: Path | None = None
    """HTML file (default: report.html in the first run)."""
    map: Map = "pca"
    """Latent map: pca, tsne, or umap (needs umap-learn)."""
    seed: Annotated[int, SEED] = 0
    """Seed of samples, t-SNE and UMAP."""
    step: int | Literal["best"] | None = None
    """Checkpoint to show (default: the newest of a finished run)."""

    def __call__(self) -> None:
        from vae_jax.cli.output import counting, destination
        from vae_jax.tasks.report import report

        if not self.runs:
            raise InputError("report: no run given; name one or more run folders")
        out = destination(self.out, self.runs[0] / "report.html", (".html",))
        with counting("measuring") as progress:
            path = report(self.runs, out, map=self.map, seed=self.seed, step=self.step, progress=progress)
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
