"""Priors and bounds on dynamic MNIST, same network, steps and seeds: which is better, and by how much.

Run: python -m benchmarks.family [--steps 1500] [--seeds 0 1] [--k 5000] [--images 300] [--out FILE]. Trains every
member on the training split, measures the IW bound on the first test images, prints a table and writes
`results/studies/family.json`. About 10 minutes on 2 cores with the defaults.

Protocol: dynamic binarization (a fresh draw each visit; one fixed draw per test image), MLP 784-200-200-40 mirrored,
Adam 1e-3 with a cosine to 5 %, batch 100, KL warm-up over the first third of the steps. Nothing was tuned on test
images. Differences are paired: the same images under two models of one seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.__main__ import environment
from vae_jax.data import DataConfig
from vae_jax.evaluation.needs import has_bound
from vae_jax.model import Context
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.objectives import Elbo
from vae_jax.runs.config import Config, Logging, choose, put
from vae_jax.runs.run import Run
from vae_jax.schedules import Linear
from vae_jax.tasks import training
from vae_jax.tasks.measuring import evaluate_run
from vae_jax.train import LearningRate, Optimizer

# name -> options on top of the common config.
MEMBERS: dict[str, dict[str, Any]] = {
    "N(0, I)": {},
    "MoG": {"model.prior": "mog"},
    "VampPrior": {"model.prior": "vamp"},
    "IWAE-50, N(0, I)": {"model.objective": "iwae", "model.objective.k": 50},
}


def config(options: dict[str, Any], steps: int, seed: int) -> Config:
    """Returns the common config with a member's options."""
    common = Config(
        steps=steps,
        seed=seed,
        data=DataConfig("mnist", batch_size=100, binarize="dynamic"),
        model=VAE(latent_dim=40, network=MLP((200, 200)), objective=Elbo(Linear(steps // 3))),
        optimizer=Optimizer(lr=1e-3, schedule=LearningRate("cosine", final=0.05)),
        logging=Logging(figures_minutes=1e9, tensorboard=False, checkpoint_every=10**9, log_every=500),
    )
    for option, value in options.items():
        common = choose(common, option, value) if isinstance(value, str) else put(common, option, value)
    return common


def main(argv: list[str] | None = None) -> int:
    """Runs the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--k", type=int, default=5000)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--only", nargs="+", choices=list(MEMBERS), default=list(MEMBERS))
    parser.add_argument("--out", type=Path, default=Path("results/studies/family.json"))
    args = parser.parse_args(argv)
    console, rows, kept = Console(highlight=False), {}, {}
    for name in args.only:
        rows[name] = []
        for seed in args.seeds:
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                chosen = config(MEMBERS[name], args.steps, seed)
                run = training.train_run(chosen, "family", Path(folder) / "run")
                trained = time.perf_counter() - start
                found = evaluate_run(run)["metrics"]
                bound = bounds(run, args.k, args.images)
            metrics = {key: found[key] for key in ("elbo", "rate", "active_units")}
            metrics["iw"] = {"value": float(bound.mean()), "stderr": stderr(bound), "n": len(bound)}
            if name != args.only[0]:
                gain = bound - kept[seed]
                metrics["gain"] = {"value": float(gain.mean()), "stderr": stderr(gain), "n": len(gain)}
            kept.setdefault(seed, bound)
            rows[name].append({"seed": seed, "metrics": metrics, "train_s": round(trained, 1)})
            said = f"{name}, seed {seed}: IW-{args.k} {bound.mean():.2f} +- {stderr(bound):.2f}"
            console.print(f"{said}; gain {gains(rows[name][-1:])}", style="dim")
            result = {
                "what": "IW bound on log p(x) of test images, nats; same network, steps and data for all",
                "protocol": {"steps": args.steps, "k": args.k, "images": args.images, "split": "test", "text": __doc__},
                "environment": environment(),
                "members": {member: summary(found) for member, found in rows.items() if found},
            }
            args.out.parent.mkdir(exist_ok=True)
            args.out.write_text(json.dumps(result, indent=1) + "\n")
    first = args.only[0]
    table = Table("member", f"IW-{args.k} mean", "sd over seeds", f"gain on {first}", "ELBO", "rate", "active units")
    for name, found in rows.items():
        s = summary(found)
        units = ", ".join(f"{r['metrics']['active_units']['value']:.0f}" for r in found)
        table.add_row(
            name,
            *(f"{s[key]:.2f}" for key in ("iw_mean", "iw_sd")),
            gains(found),
            *(f"{s[key]:.2f}" for key in ("elbo_mean", "rate_mean")),
            units,
        )
    console.print(table)
    return 0


def bounds(run: Run, k: int, images: int) -> np.ndarray:
    """Returns the IW-k bound of each of the first test images, nats [images]."""
    model, state = run.model, run.restore()
    assert has_bound(model)
    bound = model.density.bound

    @jax.jit
    def program(batch: dict[str, jax.Array], index: jax.Array) -> jax.Array:
        ctx = Context(state.step, index, state.hyper, train=False)
        return bound(state.eval_params, state.model_state, jax.random.key(0), batch, ctx, k)

    parts = []
    for batch in run.batches("test", 100):
        parts.append(np.asarray(program({"x": batch["x"]}, batch["index"]), np.float64))
        if 100 * len(parts) >= images:
            break
    return np.concatenate(parts)[:images]


def stderr(values: np.ndarray) -> float:
    """Returns the standard error of the mean."""
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def gains(rows: list[dict[str, Any]]) -> str:
    """Returns the paired gains of a member, one per seed."""
    found = [row["metrics"]["gain"] for row in rows if "gain" in row["metrics"]]
    return ", ".join(f"{g['value']:+.2f} +- {g['stderr']:.2f}" for g in found)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns mean and sd over seeds, and the rows."""
    found = [row["metrics"]["iw"]["value"] for row in rows]
    return {
        "iw_mean": statistics.mean(found),
        "iw_sd": statistics.stdev(found) if len(found) > 1 else 0.0,
        "elbo_mean": statistics.mean(row["metrics"]["elbo"]["value"] for row in rows),
        "rate_mean": statistics.mean(row["metrics"]["rate"]["value"] for row in rows),
        "seeds": rows,
    }


if __name__ == "__main__":
    sys.exit(main())
