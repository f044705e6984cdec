"""Time and memory of the likelihood ladder of a trained run: IW-k for two k, AIS for two numbers of temperatures.

Run: python -m benchmarks.ais RUN [--limit 1000] [--k 500 5000] [--temperatures 25 100] [--chains 8] [--leapfrog 5]

Each number comes from a process of its own, one after the other, so that its peak memory is its own; the process that
only loads run and data (`load`) says how much of it that is. Times are of the whole `vae-jax eval`, compilation
included.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import jobs
from benchmarks.__main__ import environment


def measure(run: Path, what: dict[str, Any]) -> dict[str, Any]:
    """Returns the metrics of one evaluation, its seconds, and this process's largest resident size in GiB."""
    from benchmarks.memory import peak_gib
    from vae_jax.runs.run import Run
    from vae_jax.tasks.measuring import evaluate_run

    start = time.perf_counter()
    metrics = tuple(what.pop("metrics"))
    found = evaluate_run(Run.load(run), metrics=metrics, **what, write=False)
    seconds = time.perf_counter() - start
    about = {name: found["protocol"][name] for name in ("ais", "bdmc") if name in found["protocol"]}
    return {"metrics": found["metrics"], "seconds": seconds, "memory_gib": peak_gib(), "protocol": about}


def plan(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Returns name -> the arguments of its evaluation."""
    common = {"limit": args.limit, "split": "test", "batch_size": 100}
    parts: dict[str, dict[str, Any]] = {"load": {**common, "metrics": ["elbo"]}}
    for k in args.k:
        parts[f"iw_{k}"] = {**common, "metrics": ["elbo", f"iw_{k}"]}
    chains = {"chains": args.chains, "leapfrog": args.leapfrog, "anneal_from": args.anneal_from}
    for t in args.temperatures:
        parts[f"ais, {t} temperatures"] = {
            **common,
            "metrics": ["elbo", "ais"],
            "settings": {**chains, "temperatures": t},
        }
    return parts


def table(found: dict[str, dict[str, Any]]) -> Table:
    """Returns one row a part."""
    shown = Table("part", "log p(x), nats", "± stderr", "seconds", "peak memory, GiB")
    for name, part in found.items():
        metric = next(m for n, m in reversed(part["metrics"].items()) if not n.endswith("bits_per_dim"))
        error = "" if metric["stderr"] is None else f"{metric['stderr']:.2f}"
        shown.add_row(name, f"{metric['value']:.2f}", error, f"{part['seconds']:.0f}", f"{part['memory_gib']:.2f}")
    return shown


def main(argv: list[str] | None = None) -> int:
    """Measures every part in turn, prints a table and writes it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ais", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a trained run")
    parser.add_argument("--limit", type=int, default=1000, help="test images")
    parser.add_argument("--k", type=int, nargs="+", default=[500, 5000], help="importance samples")
    parser.add_argument("--temperatures", type=int, nargs="+", default=[25, 100])
    parser.add_argument("--chains", type=int, default=8)
    parser.add_argument("--leapfrog", type=int, default=5)
    parser.add_argument("--anneal-from", choices=("prior", "posterior"), default="prior")
    parser.add_argument("--out", type=Path, default=jobs.ROOT / "results" / "studies" / "ais.json")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.part:
        print(json.dumps(measure(args.run, json.loads(args.part))), flush=True)
        return 0
    header = {"run": args.run.name, "limit": args.limit, "load_at_start": os.getloadavg()[0], **environment()}
    found: dict[str, dict[str, Any]] = {}
    for name, what in plan(args).items():
        done = jobs.execute(["-m", "benchmarks.ais", str(args.run.resolve()), "--part", json.dumps(what)])
        found[name] = done.lines[-1]
        # What is done is kept, should a later part take too long.
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({**header, "parts": found}, indent=2) + "\n")
    Console().print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
