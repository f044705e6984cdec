"""Fashion-MNIST against MNIST, both ways: does a VAE detect what it was not trained on?

Writes `results/studies/anomaly.json`.

Run: python -m benchmarks.anomaly [--steps 1000] [--images 1000] [--members 5] [--out FILE]. On each data set as many
VAEs as the ensemble has are trained, which differ in their seed; the first of them is the model whose ELBO, bound and
regret are scored, and WAIC is of all. The likelihood is a mass function of the 256 gray levels, so that log p(x) of
both data sets is of one kind.

The well-known failure (arXiv:1810.09136) is an AUROC below 0.5: images of the simpler data set get a larger likelihood
than those of the test split of the data that the model was trained on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.__main__ import environment
from vae_jax import api
from vae_jax.data import DataConfig
from vae_jax.likelihoods import Logistic256
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.runs.config import Config, Logging
from vae_jax.runs.run import Run

WAYS = (("fashion_mnist", "mnist"), ("mnist", "fashion_mnist"))
SCORES = ("auroc_elbo", "auroc_iw", "auroc_waic", "auroc_regret")
NAMES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}


def config(data: str, steps: int, seed: int) -> Config:
    """Returns the run of one member of the ensemble of one data set."""
    return Config(
        steps=steps,
        seed=seed,
        data=DataConfig(data, batch_size=128),
        model=VAE(latent_dim=20, network=MLP((512, 512)), likelihood=Logistic256()),
        logging=Logging(log_every=max(1, steps // 4), checkpoint_every=steps, figures_minutes=0.0, tensorboard=False),
    )


def members(data: str, count: int, steps: int, folder: Path, report: Any) -> list[Run]:
    """Returns trained runs of one data set, seeds 0, 1, ..."""
    runs = []
    for seed in range(count):
        start = time.perf_counter()
        runs.append(api.train_run(config(data, steps, seed), folder / f"{data}-{seed}", name=data, quiet=True))
        report(f"{data}, seed {seed}: {steps:,} steps in {time.perf_counter() - start:.0f} s")
    return runs


def main() -> None:
    """Trains, measures both ways, prints a table and writes the results."""
    parser = argparse.ArgumentParser(description="Anomaly detection with VAEs, Fashion-MNIST and MNIST both ways.")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--regret-steps", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("results/studies/anomaly.json"))
    given = parser.parse_args()
    console, ways = Console(), []
    settings = {"outlier_k": given.k, "regret_steps": given.regret_steps}
    with tempfile.TemporaryDirectory() as folder:
        for inside, outside in WAYS:
            first, *others = members(inside, given.members, given.steps, Path(folder), console.print)
            start = time.perf_counter()
            found = api.evaluate_run(
                first,
                metrics=("anomaly", "elbo", "bits_per_dim"),
                split="test",
                limit=given.images,
                settings=settings | {"outliers": outside},
                others=tuple(others),
            )
            ways.append(
                {
                    "trained_on": inside,
                    "outliers": outside,
                    "metrics": found["metrics"],
                    "protocol": found["protocol"],
                    "seconds": time.perf_counter() - start,
                }
            )
    table = Table("trained on", "outliers", *SCORES)
    for way in ways:
        held = way["metrics"]
        shown = [f"{held[s]['value']:.3f} +- {held[s]['stderr']:.3f}" if s in held else "-" for s in SCORES]
        table.add_row(NAMES[way["trained_on"]], NAMES[way["outliers"]], *shown)
    console.print(table)
    protocol = {
        "model": "VAE 784-512-512-20, mirrored; logistic mass of 256 grey levels, one scale; ELBO objective, Adam",
        "steps": given.steps,
        "batch": 128,
        "split": "test",
        "images": f"the first {given.images:,} of each test split",
        "ensemble": f"{given.members} seeds",
        "score": "surprise; 1 tells all outliers, 0.5 is chance, below 0.5 outliers look more likely",
        **settings,
    }
    worst = float(np.min([way["metrics"][s]["value"] for way in ways for s in SCORES if s in way["metrics"]]))
    held = {"protocol": protocol, "ways": ways, "lowest": worst, **environment()}
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(held, indent=2) + "\n")
    console.print(f"written to {given.out}")


if __name__ == "__main__":
    main()
