"""Posterior collapse on binary MNIST with a strong decoder, and what is done against it: `make collapse`.

Run: python -m benchmarks.collapse [--steps N] [--seeds 0 1] [--only plain ...] [--out FILE]. Trains
each method with the same encoder, decoder and number of decoder updates, measures it on the test split, prints a table,
and writes JSON and docs/images/collapse.png.

Protocol: MNIST, 55,000 / 5,000 / 10,000, binarised afresh at each visit in training and once for the test; ELBO with
one posterior sample; the mutual information is that of Hoffman and Johnson (2016) with the aggregate posterior of all
test images evaluated (at most ln N); a unit is active where Var_x(E[z|x]) > 0.01. Decoders are autoregressive over a
local window (`local-ar`).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from benchmarks.__main__ import environment, load_average
from benchmarks.jobs import ROOT
from benchmarks.training import train_config
from vae_jax import data, evaluation
from vae_jax.data.pipeline import eval_batches
from vae_jax.distributions.gaussian import DiagGaussian
from vae_jax.models import VAE
from vae_jax.networks import LocalAR
from vae_jax.objectives import Aggressive, Beta, Elbo, FreeBits
from vae_jax.priors import DeltaAR1
from vae_jax.runs import config as configs
from vae_jax.runs.config import Config
from vae_jax.schedules import Cyclical, Linear
from vae_jax.train import LearningRate, Optimizer

STEPS = 400
COLUMNS = ("elbo", "distortion", "rate", "mutual_information", "active_units")
HEADS = ("ELBO", "distortion", "KL", "I(x; z)", "active units")


def base(steps: int, seed: int) -> Config:
    """Returns the setting that all methods share: the strong decoder under the plain ELBO."""
    return Config(
        steps=steps,
        seed=seed,
        data=data.DataConfig("mnist", batch_size=64, binarize="dynamic"),
        model=VAE(
            latent_dim=16, network=LocalAR((256,), kernel=15, pixel_hidden=(64, 64), code_maps=0, code_scale=0.01)
        ),
        optimizer=Optimizer(lr=2e-3, clip=5.0, schedule=LearningRate("cosine", final=0.05)),
    )


def methods(steps: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """Returns name -> (what is changed, options of the config that it replaces); annealing takes half of the run.

    The decoder makes `steps` updates under every method; under `aggressive` the encoder makes more.
    """
    half = max(steps // 2, 1)
    return {
        "plain": ("the ELBO", {}),
        "linear": ("KL weight from 0 to 1 (arXiv:1511.06349)", {"model.objective": Elbo(Linear(half))}),
        "cyclical": (
            "four ramps of the KL weight (arXiv:1903.10145)",
            {"model.objective": Elbo(Cyclical(4 * max(steps // 5, 1)))},
        ),
        "beta": ("KL weight 0.2 throughout", {"model.objective": Beta(beta=0.2)}),
        "free-bits": (
            "0.5 nats per dimension are free (arXiv:1606.04934)",
            {"model.objective": FreeBits(free_nats=0.5)},
        ),
        "delta-vae": ("AR(1) prior, rate at least 5 nats (arXiv:1901.03416)", {"model.prior": DeltaAR1(delta=5.0)}),
        "aggressive": (
            "5 encoder updates a decoder update in the first half, KL weight rising (arXiv:1901.05534)",
            {"model.objective": Aggressive(Linear(5 * half), inner=5, steps=5 * half), "steps": steps + 4 * half},
        ),
        "word-dropout": (
            "half of the pixels hidden from the decoder (arXiv:1511.06349)",
            {"model.network.input_dropout": 0.5},
        ),
        "skip": ("code in every decoder layer (arXiv:1807.04863)", {"model.network.skip": True}),
    }


def configure(name: str, steps: int, seed: int) -> Config:
    """Returns the config of a method."""
    config = base(steps, seed)
    for option, value in methods(steps)[name][1].items():
        config = configs.put(config, option, value)
    return configs.check(config)


def measure(config: Config, limit: int = 0, watch: Callable[[int, dict[str, float]], None] | None = None) -> dict:
    """Trains a config and returns its numbers on the test split.

    Args:
      config: what to train.
      limit: test images used, 0 for all.
      watch: called with (step, metrics) ten times in training.
    """

    def watched(step: int, metrics: dict[str, Any]) -> None:
        if watch is not None:
            watch(step, {n: float(metrics[n]) for n in ("elbo", "rate")})

    model, state, seconds = train_config(config, watched)
    return numbers(model, state, config, limit) | {"train_seconds": round(seconds, 1)}


def numbers(model: Any, state: Any, config: Config, limit: int) -> dict[str, Any]:
    """Returns ELBO, rate, mutual information and active units on the test split."""
    source = data.load(config.data, "test")
    result = evaluation.evaluate(
        model, state, eval_batches(source, config.data, 500), key=jax.random.key(0), limit=limit
    )
    codes = evaluation.encode_all(model, state, eval_batches(source, config.data, 500), key=jax.random.key(1))
    n = limit or len(codes.mean)
    assert codes.log_var is not None
    assert codes.z is not None
    q = DiagGaussian(*(jnp.asarray(a[:n]) for a in (codes.mean, codes.log_var)))
    information = evaluation.mutual_information(q, jnp.asarray(codes.z[:n]))
    found = {name: dataclasses.asdict(result.metrics[name]) for name in COLUMNS if name in result.metrics}
    return found | {"mutual_information": dataclasses.asdict(information), "kl_per_dim": result.kl_per_dim, "n": n}


def summarize(runs: dict[str, list[dict]]) -> dict[str, dict[str, Any]]:
    """Returns the mean over seeds of each number, and their standard deviation where there are two or more."""
    summary: dict[str, dict[str, Any]] = {}
    for name, each in runs.items():
        summary[name] = {}
        for column in COLUMNS:
            values = [r[column]["value"] for r in each]
            spread = statistics.stdev(values) if len(values) > 1 else None
            summary[name][column] = {"mean": statistics.fmean(values), "std": spread, "seeds": len(values)}
    return summary


def table(summary: dict[str, dict[str, Any]], steps: int, n: int) -> Table:
    """Returns the table that is printed."""
    out = Table(
        title=f"Posterior collapse: binary MNIST, local-ar decoder, {steps:,} decoder updates of 64 images",
        title_justify="left",
        caption=f"{n:,} test images, one posterior sample; nats. I(x; z) <= ln {n} = {jnp.log(n):.1f}.",
        caption_justify="left",
    )
    out.add_column("method")
    for head in HEADS:
        out.add_column(head, justify="right")
    out.add_column("what")
    for name, row in summary.items():
        cells = []
        for column in COLUMNS:
            digits = 1 if column == "active_units" else 2
            spread = row[column]["std"]
            cells.append(f"{row[column]['mean']:.{digits}f}" + (f" ±{spread:.{digits}f}" if spread is not None else ""))
        out.add_row(name, *cells, methods(steps)[name][0].split(" (")[0])
    return out


def figure(summary: dict[str, dict[str, Any]], path: Path) -> None:
    """Writes the picture: rate and mutual information of each method, and its ELBO beside them."""
    from matplotlib.figure import Figure

    names = list(summary)[::-1]
    fig = Figure(figsize=(9, 0.45 * len(names) + 1.6), layout="constrained")
    left, right = fig.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    places = range(len(names))
    for offset, column, label in ((0.2, "rate", "KL(q(z|x) || p(z))"), (-0.2, "mutual_information", "I(x; z)")):
        spread = [summary[n][column]["std"] or 0.0 for n in names]
        values = [summary[n][column]["mean"] for n in names]
        left.barh([p + offset for p in places], values, 0.38, xerr=spread, label=label)
    left.set(yticks=list(places), yticklabels=names, xlabel="nats")
    left.legend(loc="lower right")
    elbo = [summary[n]["elbo"]["mean"] for n in names]
    right.errorbar(elbo, list(places), xerr=[summary[n]["elbo"]["std"] or 0.0 for n in names], fmt="o", capsize=3)
    right.set(xlabel="ELBO, nats")
    for axis in (left, right):
        axis.grid(axis="x", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    fig.suptitle("Which methods keep a code where the decoder could do without (binary MNIST, test)")
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=110)


def main(argv: list[str] | None = None) -> int:
    """Runs the study; returns 0."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.collapse", description="Posterior collapse on binary MNIST."
    )
    parser.add_argument("--steps", type=int, default=STEPS, help=f"decoder updates of each method ({STEPS})")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="seeds of each method (0 1)")
    parser.add_argument("--only", nargs="+", choices=list(methods(STEPS)), default=list(methods(STEPS)))
    parser.add_argument("--limit", type=int, default=0, help="test images used; 0 for all")
    parser.add_argument("--out", type=Path, default=ROOT / "results/studies/collapse.json", help="JSON file to write")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "images" / "collapse.png")
    args = parser.parse_args(argv)
    console, log = Console(), Console(stderr=True)
    header = {"steps": args.steps, "seeds": args.seeds, "load_at_start": load_average(), **environment()}
    runs: dict[str, list[dict]] = {name: [] for name in args.only}
    # Seeds in turn, so that a run that is stopped has every method.
    for seed in args.seeds:
        for name in args.only:

            def watch(step: int, metrics: dict[str, float], name: str = name, seed: int = seed) -> None:
                at = f"{name}, seed {seed}, step {step}"
                log.print(f"[dim]{at}: ELBO {metrics['elbo']:.1f}, KL {metrics['rate']:.2f}")

            runs[name].append(measure(configure(name, args.steps, seed), args.limit, watch))
            summary = summarize({n: r for n, r in runs.items() if r})
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps({**header, "summary": summary, "runs": runs}, indent=2) + "\n")
    figure(summary, args.figure)
    console.print(table(summary, args.steps, next(iter(runs.values()))[0]["n"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
