"""`vae-jax fit-prior RUN`: a density of the run's codes, fitted after training, for `vae-jax sample RUN --prior`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from vae_jax.options.ranges import SEED, AtLeast


@dataclass(frozen=True)
class FitPrior:
    """Fit a density to the codes of the training examples; `vae-jax sample RUN --prior KIND` then draws from it."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    kind: str = "gmm"
    """gmm (full covariances), flow, or two-stage (a second VAE on the codes)."""
    components: Annotated[int, AtLeast(1)] = 10
    """Gaussians of gmm."""
    steps: Annotated[int, AtLeast(1)] = 3000
    """Updates of flow and two-stage."""
    limit: Annotated[int, AtLeast(0)] = 100_000
    """Most examples of a split that are encoded, drawn at random; 0 for all."""
    split: str | None = None
    """Split whose codes score the density (default: the one that the run evaluates)."""
    source: Path | None = None
    """File or folder where the data of the run are now (default: where they were in training)."""
    seed: Annotated[int, SEED] = 0
    """Seed of the codes' noise, the initialization and the batches."""
    step: int | Literal["best"] | None = None
    """Checkpoint (default: the newest)."""
    out: Path | None = None
    """Folder to write KIND.json and KIND.npz into (default: RUN/prior)."""

    def __call__(self) -> None:
        from vae_jax.cli import unread
        from vae_jax.cli.output import counting
        from vae_jax.errors import command

        if self.kind == "gmm":
            unread.refuse(self, "--kind flow or --kind two-stage", "steps")
        else:
            unread.refuse(self, "--kind gmm", "components")
        with counting("encoding") as report:
            from vae_jax.tasks.fit_prior import fit_prior

            path, about = fit_prior(
                self.run,
                self.kind,
                components=self.components,
                steps=self.steps,
                limit=self.limit,
                split=self.split,
                source=self.source,
                seed=self.seed,
                step=self.step,
                out=self.out,
                report=report,
            )
        held = about["log_density"]["held_out"]
        words = "log density" if about["exact"] else "bound on the log density (100 importance samples)"
        print(f"{self.kind} fitted to {about['codes']:,} codes, {about['drawn']}")
        print(f"{words} of {held['n']:,} codes of the {about['split']} split: {_shown(held)} nats")
        print(f"  of the training codes: {_shown(about['log_density']['train'])} nats")
        draw = command("sample", self.run, prior=self.kind if self.out is None else path)
        print(f"written to {path}; draw from it with {draw}")


def _shown(estimate: dict[str, Any]) -> str:
    error = estimate["stderr"]
    return f"{estimate['value']:.3f}" if error is None else f"{estimate['value']:.3f} +- {error:.3f}"
