"""One sweep against as many single runs, one after the other: total wall time, compilation included, on the CPU.

Run: python -m benchmarks.sweep [--only vae_digits] [--seeds 16] [--steps N] [--strategies vmap map] [--out FILE]

Each side is a process of its own, whose start-up (imports) is not counted. A single run is `train_run` and
`evaluate_run`, as `vae-jax train` makes them, without its pictures, which members of a sweep do not have either; jax's
caches are cleared before each, so that it compiles as it would in a process of its own. The sweep is the whole command:
training, a checkpoint and an evaluation of each member, the table and the plots. Both read and write the same files.
On a machine with other work the wall times say little; `cpu_ratio` compares the processor time of the two processes.
`--singles N` times only the first N single runs and multiplies (the result says so).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import jobs

EXPERIMENTS = ("vae_digits", "beta_vae")
ROOT = Path(__file__).resolve().parents[1]


def configured(name: str, steps: int | None) -> Any:
    """Returns an experiment's config, shortened on request, without TensorBoard files."""
    from vae_jax.runs import config as configs
    from vae_jax.runs import experiments as index

    config = configs.put(index.load(index.find(name)), "logging.tensorboard", False)
    return config if steps is None else configs.put(config, "steps", steps)


def single(name: str, steps: int | None, seeds: int) -> dict[str, Any]:
    """Returns the seconds of each of the single runs, compilation and evaluation included."""
    import jax

    from vae_jax.runs import config as configs
    from vae_jax.tasks import training
    from vae_jax.tasks.measuring import evaluate_run

    training._figures = lambda run, state, step: None
    config, seconds, cpu, elbo = configured(name, steps), [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            jax.clear_caches()
            start, work = time.perf_counter(), time.process_time()
            run = training.train_run(configs.put(config, "seed", seed), name, Path(folder) / str(seed))
            elbo.append(evaluate_run(run)["metrics"]["elbo"]["value"])
            seconds.append(time.perf_counter() - start)
            cpu.append(time.process_time() - work)
    return {"seconds": seconds, "cpu": cpu, "elbo": elbo}


def together(name: str, steps: int | None, seeds: int, strategy: str) -> dict[str, Any]:
    """Returns the seconds of the sweep, and those of the training of its one program (compilation included)."""
    from vae_jax.tasks.sweeps.plan import make_members
    from vae_jax.tasks.sweeps.record import Sweep
    from vae_jax.tasks.sweeps.run import sweep_run

    config, numbers = configured(name, steps), tuple(range(seeds))
    start, work = time.perf_counter(), time.process_time()
    members = tuple(make_members(numbers, {}, lambda values: config))
    sweep = Sweep(name, members, numbers, {}, (), strategy)
    with tempfile.TemporaryDirectory() as folder:
        values = sweep_run(sweep, Path(folder) / "sweep")
    seconds, cpu = time.perf_counter() - start, time.process_time() - work
    elbo = [member["metrics"]["elbo"]["value"] for member in values["members"]]
    training = [group["seconds"] for group in values["groups"]]
    return {"seconds": seconds, "cpu": cpu, "training": training, "elbo": elbo}


def compare(name: str, steps: int | None, seeds: int, singles: int, strategies: list[str]) -> dict[str, Any]:
    """Returns the measurement of one experiment."""

    def job(*words: str) -> dict[str, Any]:
        given = ["--steps", str(steps)] if steps is not None else []
        return jobs.execute(["-m", "benchmarks.sweep", "--job", *words, "--only", name, *given]).lines[-1]

    load = os.getloadavg()[0]
    alone = job("single", "--seeds", str(singles))
    total, work = (sum(alone[clock]) * seeds / singles for clock in ("seconds", "cpu"))
    found: dict[str, Any] = {
        "load_before": round(load, 1),
        "steps": configured(name, steps).steps,
        "seeds": seeds,
        "single_runs": {
            "timed": singles,
            "seconds": [round(s, 2) for s in alone["seconds"]],
            f"seconds_of_{seeds}": round(total, 2),
            f"cpu_seconds_of_{seeds}": round(work, 2),
            "measured": singles == seeds,
        },
    }
    for strategy in strategies:
        out = job("sweep", "--seeds", str(seeds), "--strategies", strategy)
        apart = max(abs(a - b) for a, b in zip(alone["elbo"], out["elbo"]))
        found[strategy] = {
            "seconds": round(out["seconds"], 2),
            "training_seconds": out["training"],
            "ratio": round(out["seconds"] / total, 3),
            "cpu_seconds": round(out["cpu"], 2),
            "cpu_ratio": round(out["cpu"] / work, 3),
            "largest_difference_of_elbo": apart,
        }
        print(f"{name} {strategy}: {found[strategy]['seconds']} s against {total:.1f} s, {found[strategy]['ratio']}x")
    return found


def main(argv: list[str]) -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS))
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--singles", type=int, help="single runs that are timed (default: as many as seeds)")
    parser.add_argument("--steps", type=int, help="default: the experiment's own")
    parser.add_argument("--strategies", nargs="+", choices=("vmap", "map"), default=["vmap", "map"])
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "studies" / "sweep.json")
    parser.add_argument("--job", choices=("single", "sweep"), help=argparse.SUPPRESS)
    a = parser.parse_args(argv)
    if a.job == "single":
        print(json.dumps(single(a.only[0], a.steps, a.seeds)))
        return
    if a.job == "sweep":
        print(json.dumps(together(a.only[0], a.steps, a.seeds, a.strategies[0])))
        return
    from benchmarks.__main__ import environment

    known = json.loads(a.out.read_text()) if a.out.is_file() else {"runs": {}}
    for name in a.only:
        found = compare(name, a.steps, a.seeds, a.singles or a.seeds, a.strategies)
        known["runs"][f"{name}, {found['steps']} steps, {a.seeds} seeds"] = {**found, "environment": environment()}
        a.out.write_text(json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
