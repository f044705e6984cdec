"""Speed of quantizers and of the VQ-VAE step on a GPU, against PyTorch as it comes and under `torch.compile`.

Run on a machine with a GPU: python -m benchmarks.gpu.quantized [--quick] [--repeats 3]. Ours and the peers run in
turns, each in a process of its own. Prints a JSON line per part and side: rates, ours / peer, and what could not run.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from benchmarks import jobs, report
from benchmarks.parts import Run, attempt

ROUNDS = 3


def sides(quick: bool) -> dict[str, dict[str, Run]]:
    """Returns what measures each side of each part."""
    steps = 3 if quick else 300  # a step takes a millisecond or so

    def peers(run: Any) -> dict[str, Run]:
        found = {}
        for kind in ("library", "plain"):
            for name, options in ((f"torch-{kind}", ()), (f"torch-{kind}-compiled", ("--compile",))):
                found[name] = lambda kind=kind, options=options: run(kind, "--device", "cuda", *options)
        return found

    def ours(job: str) -> Run:
        return lambda: jobs.ours(job, rounds=ROUNDS, quick=quick, steps=steps, platform="cuda")[0]

    return {
        "quantize": {
            "ours": ours("quantize"),
            **peers(lambda kind, *options: jobs.torch_quantize(kind, ROUNDS, quick, *options)),
        },
        "vq": {
            "ours": ours("vq"),
            **peers(lambda kind, *options: jobs.torch_vq(kind, ROUNDS, quick, steps, *options)),
        },
    }


def main() -> int:
    """Prints the rates; returns 1 if anything could not be measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes and random images: does it run at all")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    raw: dict[str, Any] = {}
    for part, runs in sides(args.quick).items():
        raw[part] = [{side: attempt(run) for side, run in runs.items()} for _ in range(args.repeats)]
    for part, entry in report.summarize(raw).items():
        if part in raw:
            print(json.dumps({"part": part, **entry}), flush=True)
    problems = report.errors(raw)
    for problem in problems:
        print(f"not measured: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
