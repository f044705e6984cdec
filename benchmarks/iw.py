"""Speed of the IW bound: samples/s of `log_prob_bound` and of the same loop in PyTorch, on the CPU.

Run: python -m benchmarks.iw [--k 100] [--batches 4] [--rounds 3] [--no-torch] [--out FILE]

A sample is one posterior sample of one image: drawn, decoded and weighed. The model is the one-layer IWAE net, 784-200-
200-50; its weights do not matter to the time. The two run in turn, each in a process of its own, and the share of the
matrix-product peak (of the same process, just after) says what a perfect program could still gain.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import flops, jobs
from vae_jax import spec

BATCH, PIXELS, HIDDEN, LATENT = 500, 784, (200, 200), 50


def operations(k: int) -> int:
    """Returns the matrix-product operations of one batch: the encoder once, the decoder k times."""
    encoder = sum(flops.dense(BATCH, (PIXELS, *HIDDEN, 2 * LATENT)))
    return encoder + k * sum(flops.dense(BATCH, (LATENT, *HIDDEN[::-1], PIXELS)))


def images() -> np.ndarray:
    """Returns random binary images [B, 28, 28, 1]."""
    return np.random.default_rng(0).integers(0, 2, (BATCH, 28, 28, 1)).astype(np.float32)


def timed(run: Callable[[int], float], batches: int, rounds: int) -> tuple[float, list[float]]:
    """Returns (the bound, seconds per batch of each round); the first call, which compiles, is not counted."""
    bound = run(0)
    seconds = []
    for i in range(rounds):
        start = time.perf_counter()
        for j in range(batches):
            run(1 + i * batches + j)
        seconds.append((time.perf_counter() - start) / batches)
    return bound, seconds


def ours(k: int, batches: int, rounds: int) -> dict[str, Any]:
    """Times this library's jitted bound."""
    import jax
    import jax.numpy as jnp

    from benchmarks.memory import peak_gib
    from benchmarks.training import matmul_peak
    from vae_jax.model import Context
    from vae_jax.models import VAE
    from vae_jax.networks import MLP

    model = VAE(LATENT, MLP(HIDDEN)).build(spec.images(28, 28, 1))
    batch = {"x": jnp.asarray(images())}
    params, state = jax.jit(model.init)(jax.random.key(0), batch)
    ctx = Context(jnp.zeros((), jnp.int32), jnp.arange(BATCH, dtype=jnp.int32), {}, train=False)
    bound = jax.jit(functools.partial(model.density.bound, ctx=ctx, k=k))

    def run(seed: int) -> float:
        return float(jnp.mean(bound(params, state, jax.random.key(seed), batch)))

    value, seconds = timed(run, batches, rounds)
    memory = peak_gib()
    return {"bound": value, "seconds": seconds, "memory_gib": memory, "peak_gflops": matmul_peak()}


def torch_loop(k: int, batches: int, rounds: int) -> dict[str, Any]:
    """Times the loop that a PyTorch user writes: the encoder once, then as many samples at a time as ours."""
    import torch  # type: ignore[import-not-found]
    from torch import nn  # type: ignore[import-not-found]

    from benchmarks.memory import peak_gib

    torch.manual_seed(0)

    def net(*widths: int) -> Any:
        layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*layers[:-1])

    encoder, decoder = net(PIXELS, *HIDDEN, 2 * LATENT), net(LATENT, *HIDDEN[::-1], PIXELS)
    x, width = torch.from_numpy(images().reshape(BATCH, PIXELS)), 8
    constant = 0.5 * math.log(2 * math.pi)

    @torch.no_grad()
    def run(seed: int) -> float:
        torch.manual_seed(seed)
        mean, log_var = encoder(x).chunk(2, -1)
        parts = []
        for first in range(0, k, width):
            noise = torch.randn(min(width, k - first), BATCH, LATENT)
            z = mean + torch.exp(0.5 * log_var) * noise
            logits = decoder(z)
            target = x.expand_as(logits)
            log_p_x = -nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(-1)
            log_p_z = (-0.5 * z**2 - constant).sum(-1)
            log_q = (-0.5 * noise**2 - 0.5 * log_var - constant).sum(-1)
            parts.append(log_p_x + log_p_z - log_q)
        return float((torch.logsumexp(torch.cat(parts), 0) - math.log(k)).mean())

    value, seconds = timed(run, batches, rounds)
    return {"bound": value, "seconds": seconds, "memory_gib": peak_gib()}


SIDES = {"ours": ours, "torch": torch_loop}


def summary(name: str, found: list[dict[str, Any]], k: int) -> dict[str, Any]:
    """Returns median rates over all rounds of one side."""
    second = statistics.median(s for part in found for s in part["seconds"])
    row = {
        "samples_per_s": BATCH * k / second,
        "gflops": operations(k) / second / 1e9,
        "memory_gib": max(part["memory_gib"] for part in found),
        "hours_for_10000_images_of_5000_samples": 10_000 * 5_000 / (BATCH * k / second) / 3600,
    }
    if name == "ours":
        row["share_of_matmul_peak"] = row["gflops"] / statistics.median(part["peak_gflops"] for part in found)
    return row


def main(argv: list[str] | None = None) -> int:
    """Runs both sides in turn, prints rates and writes them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.iw", description=__doc__.splitlines()[0])
    parser.add_argument("--k", type=int, default=100, help="importance samples per image")
    parser.add_argument("--batches", type=int, default=4, help="batches of 500 images a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each side in a process")
    parser.add_argument("--repeats", type=int, default=2, help="processes of each side, in turn")
    parser.add_argument("--no-torch", action="store_true", help="measure this library only")
    parser.add_argument("--out", type=Path, default=jobs.ROOT / "results" / "studies" / "iw_speed.json")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.side:
        print(json.dumps(SIDES[args.side](args.k, args.batches, args.rounds)), flush=True)
        return 0
    sides = ["ours"] if args.no_torch else list(SIDES)
    options = ["--k", str(args.k), "--batches", str(args.batches), "--rounds", str(args.rounds)]
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for _ in range(args.repeats):
        for side in sides:
            try:
                found[side] += jobs.execute(["-m", "benchmarks.iw", "--side", side, *options]).lines
            except jobs.Failed as error:
                print(f"not measured: {side}: {error}", file=sys.stderr)
    rows = {side: summary(side, parts, args.k) for side, parts in found.items() if parts}
    for side, row in rows.items():
        print(side, json.dumps({name: float(f"{value:.4g}") for name, value in row.items()}))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"k": args.k, "batch": BATCH, "summary": rows, "raw": found}, indent=2) + "\n")
    return 0 if len(rows) == len(sides) else 1


if __name__ == "__main__":
    sys.exit(main())
