"""M2, M1 and a plain classifier with 100 labels on MNIST, over several seeds.

Writes `results/studies/semi_supervised.json`.

Run: python -m benchmarks.semi [--seeds 5] [--steps 3000] [--split test] [--quick] [--out FILE]. Each seed chooses its
own labeled examples, which the three methods share. Options were chosen on the validation split; `--split test` is for
the final table alone.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.__main__ import environment
from vae_jax import api
from vae_jax.data import DataConfig
from vae_jax.models import M2, VAE, Classifier
from vae_jax.networks import MLP
from vae_jax.runs.config import Config, Logging

# method -> (what it is, metric that counts, model). All have the same classifier or encoder widths.
METHODS: dict[str, tuple[str, str, Any]] = {
    "classifier": ("the network of q(y|x), labelled examples alone", "accuracy", Classifier(2, MLP((256,)))),
    "m1": ("SVM on the codes of a VAE that saw no label", "probe_svm", VAE(20, MLP((256,)))),
    "m2": ("classes summed out of the bound of unlabelled images", "accuracy", M2(2, MLP((256,)), alpha=3.0)),
}


def config(method: str, seed: int, steps: int, labels: int) -> Config:
    """Returns the run of one method: 50,000 training images, `labels` of them labeled."""
    return Config(
        steps=steps,
        seed=seed,
        data=DataConfig(
            "mnist", batch_size=50, protocol="vampprior", binarize="dynamic", labels=labels, label_seed=seed
        ),
        model=METHODS[method][2],
        logging=Logging(log_every=max(1, steps // 10), checkpoint_every=steps, figures_minutes=0.0, tensorboard=False),
    )


def measure(method: str, seed: int, steps: int, labels: int, split: str, folder: Path) -> dict[str, float]:
    """Trains one run and returns its accuracy on `split` and the seconds that training took."""
    start = time.perf_counter()
    run = api.train_run(config(method, seed, steps, labels), folder / f"{method}-{seed}", name=method, quiet=True)
    seconds = time.perf_counter() - start
    metric = METHODS[method][1]
    found = api.evaluate_run(run, metrics=(metric,), split=split)
    return {"accuracy": found["metrics"][metric]["value"], "seconds": seconds}


def main() -> None:
    """Runs everything, prints a table and writes the results."""
    parser = argparse.ArgumentParser(description="M2, M1 and a plain classifier with few labels on MNIST.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--only", nargs="*", choices=tuple(METHODS), default=tuple(METHODS))
    parser.add_argument("--quick", action="store_true", help="one seed, 500 steps: shows that it runs")
    parser.add_argument("--out", type=Path, default=Path("results/studies/semi_supervised.json"))
    given = parser.parse_args()
    seeds, steps = (1, 500) if given.quick else (given.seeds, given.steps)
    console, rows = Console(), {}
    with tempfile.TemporaryDirectory() as folder:
        for method in given.only:
            runs = [measure(method, seed, steps, given.labels, given.split, Path(folder)) for seed in range(seeds)]
            accuracy = np.asarray([run["accuracy"] for run in runs])
            rows[method] = {
                "what": METHODS[method][0],
                "metric": METHODS[method][1],
                "model": json.loads(json.dumps(dataclasses.asdict(METHODS[method][2]), default=str)),
                "accuracy": {
                    "mean": float(accuracy.mean()),
                    "sd": float(accuracy.std(ddof=1)) if seeds > 1 else None,
                    "seeds": accuracy.tolist(),
                },
                "seconds": float(np.mean([run["seconds"] for run in runs])),
            }
            spread = f" +- {accuracy.std(ddof=1):.4f} (sd)" if seeds > 1 else ""
            console.print(f"{method:<11} {accuracy.mean():.4f}{spread}  {METHODS[method][0]}", soft_wrap=True)
    protocol = {
        "data": "mnist, protocol vampprior, binarised afresh at each visit",
        "labels": given.labels,
        "split": given.split,
        "seeds": seeds,
        "steps": steps,
        "batch": 50,
    }
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps({"protocol": protocol, "methods": rows, **environment()}, indent=2) + "\n")
    console.print(f"written to {given.out}")


if __name__ == "__main__":
    main()
