"""The parts of the benchmark: what runs, and in which order."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from benchmarks import jobs

PARTS = ("mlp", "conv", "quantize", "vq", "sampling", "sweep", "startup", "train")
Run = Callable[[], Any]


def sides(quick: bool) -> dict[str, dict[str, Run]]:
    """Returns the parts that have peers: by part and side, what measures it."""
    rounds, steps = 1 if quick else 3, 3 if quick else 0

    def ours(job: str) -> Run:
        return lambda: jobs.ours(job, rounds=rounds, quick=quick, steps=steps)[0]

    return {
        "mlp": {
            "ours": ours("mlp"),
            "torch-memory": lambda: jobs.torch_mlp("memory", rounds),
            "torch-loader": lambda: jobs.torch_mlp("loader", 1),
        },
        "conv": {"ours": ours("conv"), "torch-conv": lambda: jobs.torch_conv(rounds)},
        "quantize": {
            "ours": ours("quantize"),
            "torch-library": lambda: jobs.torch_quantize("library", rounds, quick),
            "torch-plain": lambda: jobs.torch_quantize("plain", rounds, quick),
        },
        "vq": {
            "ours": ours("vq"),
            "torch-library": lambda: jobs.torch_vq("library", rounds, quick, steps),
            "torch-plain": lambda: jobs.torch_vq("plain", rounds, quick, steps),
        },
    }


def alone(quick: bool, repeats: int) -> dict[str, Run]:
    """Returns the parts without peers."""
    rounds, steps = 1 if quick else 3, 3 if quick else 0
    return {
        # The peer of the cache is our own network without it, in turns in one process.
        "sampling": lambda: jobs.ours("sampling", rounds=rounds, quick=quick)[0],
        "sweep": lambda: {"lines": jobs.ours("sweep", rounds=rounds, quick=quick, steps=steps)},
        "startup": lambda: {"seconds": jobs.startup(repeats)},
        # The whole command: figures and the evaluation at the end are part of what is seen.
        "train": lambda: jobs.train_mnist(500),
    }


def attempt(function: Run) -> Any:
    """Returns the result, or {"error": text}: one peer that is missing must not cost the rest."""
    try:
        return function()
    except jobs.Failed as error:
        return {"error": str(error)}


def measure(args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Runs every measurement and returns the raw results."""
    raw: dict[str, Any] = {}
    for part, runs in sides(args.quick).items():
        if part not in args.only:
            continue
        chosen = {side: run for side, run in runs.items() if side == "ours" or not args.no_peers}
        raw[part] = []
        for i in range(args.repeats):
            # In turn (a-b-a-b): whatever else the machine does falls on both.
            raw[part].append({})
            for side, run in chosen.items():
                say(f"{part} {i + 1}/{args.repeats}: {side}")
                raw[part][-1][side] = attempt(run)
    for part, run in alone(args.quick, args.repeats).items():
        if part in args.only and not (args.quick and part == "train"):
            say(part)
            raw[part] = attempt(run)
    return raw
