"""Measures everything, ours and the peers in turn, prints one table and writes `results/studies/bench.json`.

Run: python -m benchmarks [--quick] [--only mlp ...] [--no-peers] [--repeats 3] [--out FILE]. About 20 minutes on 2
cores that are idle; on a busy machine the rates, and PyTorch's more than ours, say little.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import jobs, parts, report


def environment() -> dict[str, Any]:
    """Returns processor, cores, memory, versions and the commit; no names of hosts or folders."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = models[0] if models else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = {"cpu": cpu, "cores": cores, "memory_gib": round(memory, 1), "system": platform.system()}
    versions = {"python": platform.python_version()}
    for name in ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "vector-quantize-pytorch", "vae_jax"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {"machine": machine, "versions": versions, "commit": commit()}


def commit() -> str:
    """Returns the git commit, with "+changes" if tracked files differ from it; "unknown" outside a clone."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=jobs.ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "vae_jax", "benchmarks")
        return (git("rev-parse", "HEAD") or "unknown") + ("+changes" if changed else "")
    except FileNotFoundError:
        return "unknown"


def load_average() -> float:
    """Returns how many processes wanted a core in the last minute; well above 0 at the start, the rates are noisy."""
    return round(os.getloadavg()[0], 2)


def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns 1 if anything could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=0, help="repeats of each pair (3; 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="a few steps on random images: does it run at all")
    parser.add_argument("--only", nargs="+", choices=parts.PARTS, default=parts.PARTS, help="measure these parts")
    parser.add_argument("--no-peers", action="store_true", help="measure this library only")
    parser.add_argument("--out", type=Path, help="JSON file to write (results/studies/bench.json)")
    args = parser.parse_args(argv)
    args.repeats = args.repeats or (1 if args.quick else 3)
    # Half a run must not take the place of a whole one.
    is_whole = not (args.quick or args.no_peers) and set(args.only) == set(parts.PARTS)
    out = args.out or jobs.ROOT / "results" / "studies" / ("bench.json" if is_whole else "bench-partial.json")
    console, log = Console(), Console(stderr=True)
    header = {"quick": args.quick, "repeats": args.repeats, "load_at_start": load_average(), **environment()}
    raw = parts.measure(args, lambda text: log.print(f"[dim]{text}[/dim]"))
    summary = report.summarize(raw)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(
        json.dumps({**header, "load_at_end": load_average(), "summary": summary, "raw": raw}, indent=2) + "\n"
    )
    machine, versions = header["machine"], header["versions"]
    title = f"{machine['cpu']}, {machine['cores']} cores; jax {versions['jax']}, torch {versions['torch']}"
    title += "; QUICK: the numbers mean nothing" if args.quick else ""
    console.print(report.table(summary, title, args.quick))
    if header["load_at_start"] > 0.5:
        console.print(f"the machine was busy (load {header['load_at_start']}): these rates say little", style="yellow")
    problems = report.errors(raw)
    for problem in problems:
        console.print(f"not measured: {problem}", markup=False)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
