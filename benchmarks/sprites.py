"""Disentanglement scores of five methods on 64x64 sprites with the literature's network.

Writes `results/studies/sprites.json`.

Run: python -m benchmarks.sprites [--steps N] [--seeds 0:2] [--only beta ...] [--out FILE]. Every method trains all its
seeds as one program (`vae-jax sweep`). Protocol of arXiv:1811.12359 (Conv64, 10 latents, Bernoulli, batch 64, Adam; one
strength a method from its grid) but for the number of steps, 300,000 there, and the learning rate, 1e-4 there: short
runs take 5e-4. The capacity of `capacity` rises over the whole run. Scores are of mean codes of 10,000 images drawn
from the whole factor grid, by the settings of `vae_jax.metrics`, except that DCI's boosting learns from 1,000 of them
and is tested on 500. The error of a score is the standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.__main__ import environment, load_average
from vae_jax import metrics
from vae_jax.cli import main as cli
from vae_jax.evaluation import encode_all
from vae_jax.runs.run import Run

IMAGES = 10_000
SCORES = ("mig", "dci_disentanglement", "sap", "factorvae_score", "betavae_score")


def methods(steps: int) -> dict[str, list[str]]:
    """Returns name -> options of its objective."""
    return {
        "beta": ["--model.objective", "beta", "--model.objective.beta", "4"],
        "factor": ["--model.objective", "factor", "--model.objective.gamma", "20"],
        "beta-tc": ["--model.objective", "beta-tc", "--model.objective.beta", "6"],
        "dip-ii": ["--model.objective", "dip-ii"],
        "capacity": [
            *("--model.objective", "capacity", "--model.objective.capacity", "25"),
            *("--model.objective.capacity-steps", str(steps)),
        ],
    }


def codes_of(folder: Path) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns mean codes [N, D] and factors [N, F] of images from the whole grid, in random order, and the ELBO."""
    run = Run.load(folder)
    rows = np.sort(np.random.default_rng(0).choice(run.source("train").size, IMAGES, replace=False))
    parts = (run.examples("train", part) for part in np.array_split(rows, IMAGES // 500))
    codes = encode_all(run.model, run.restore(), parts)
    order = np.random.default_rng(1).permutation(IMAGES)
    elbo = json.loads((folder / "eval.json").read_text())["metrics"]["elbo"]["value"]
    return codes.mean[order], codes.extra["factors"][order], elbo


def scores(z: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Returns the scores of codes [N, D] with factors [N, F]."""
    dci = metrics.dci(z[:1500], y[:1500], train=1000, test=500, groups=0)
    return {
        "mig": metrics.mig(z, y, resamples=0).value,
        "dci_disentanglement": dci.disentanglement.value,
        "dci_completeness": dci.completeness.value,
        "dci_informativeness": dci.informativeness.value,
        "sap": metrics.sap(z, y, train=6667, test=3333, resamples=0).value,
        "factorvae_score": metrics.factorvae_score(z, y, resamples=0).value,
        "betavae_score": metrics.betavae_score(z, y, resamples=0).value,
    }


def measure(name: str, steps: int, seeds: str, folder: Path) -> dict[str, Any]:
    """Trains a method and returns its scores, by seed and summed up."""
    start = time.perf_counter()
    words = ["sweep", "beta_vae_dsprites", *methods(steps)[name], "--seeds", seeds, "--steps", str(steps)]
    words += [
        "--optimizer.lr",
        "5e-4",
        "--evaluation.limit",
        "2000",
        "--evaluation.split",
        "train",
        "--metrics",
        "elbo",
    ]
    words += ["--workdir", str(folder), "--quiet", "--logging.tensorboard", "False"]
    if cli.run(words) != 0:
        raise RuntimeError(f"{name}: the sweep failed")
    trained = time.perf_counter() - start
    members = sorted(path.parent for path in folder.glob("*/config.json"))
    codes = [codes_of(member) for member in members]
    # Boosting is minutes of Python on one core; the seeds do not wait for each other.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as pool:
        found = pool.map(scores, [z for z, _, _ in codes], [y for _, y, _ in codes])
        rows = [row | {"elbo": elbo} for row, (_, _, elbo) in zip(found, codes, strict=True)]
    summary = {
        key: {
            "mean": statistics.mean(row[key] for row in rows),
            "sd": statistics.stdev(row[key] for row in rows) if len(rows) > 1 else None,
        }
        for key in rows[0]
    }
    options = " ".join(methods(steps)[name])
    return {"options": options, "summary": summary, "seeds": rows, "train_seconds": round(trained, 1)}


def table(found: dict[str, Any], steps: int) -> Table:
    """Returns the scores as a table."""
    out = Table(title=f"64x64 sprites, {steps:,} steps (the protocol has 300,000), mean and sd over seeds")
    out.add_column("objective")
    for name in (*SCORES, "elbo"):
        out.add_column(name, justify="right")
    for name, result in found.items():
        cells = []
        for key in (*SCORES, "elbo"):
            value = result["summary"][key]
            digits = 1 if key == "elbo" else 3
            spread = "" if value["sd"] is None else f" ± {value['sd']:.{digits}f}"
            cells.append(f"{value['mean']:.{digits}f}{spread}")
        out.add_row(name, *cells)
    return out


def main(argv: list[str] | None = None) -> int:
    """Trains all methods, prints the table, writes the file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", default="0:2")
    parser.add_argument("--only", nargs="*", default=list(methods(1)), choices=list(methods(1)))
    parser.add_argument("--out", type=Path, default=Path("results/studies/sprites.json"))
    args = parser.parse_args(argv)
    header = {
        "what": "disentanglement scores on 64x64 sprites, mean and sd over seeds",
        "protocol": " ".join(line.strip() for line in (__doc__ or "").splitlines()[3:] if line),
        "steps": args.steps,
        "seeds": args.seeds,
        "load_at_start": load_average(),
        "environment": environment(),
    }
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only:
            found[name] = measure(name, args.steps, args.seeds, Path(folder) / name)
            args.out.parent.mkdir(exist_ok=True)
            args.out.write_text(json.dumps(header | {"methods": found}, indent=1) + "\n")
            print(f"{name}: trained in {found[name]['train_seconds']:.0f} s", flush=True)
    Console().print(table(found, args.steps))
    return 0


if __name__ == "__main__":
    sys.exit(main())
