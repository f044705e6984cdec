"""What the default experiment learns, over seeds: position and scale each in a dimension of their own, and shapes.

Writes `results/studies/default_run.json`, and with `--pictures DIR` the traversals of each seed.

Run: python -m benchmarks.default_run [--seeds 0:5] [--steps N] [--out FILE] [--pictures DIR] [--folder DIR]. The seeds
are trained as one program (`vae-jax sweep beta_vae`) and measured on the test split. A factor has a dimension of its
own if its correlation with some dimension of the mean code is .95 or more, and that dimension's with the two other
factors at most .3. Shapes are measured in two ways: the accuracy of a logistic regression from the mean code, learned
on half of the test images and measured on the other half, and the overlap of an image and its reconstruction, which is
the number of pixels that are on in both over that of those on in either.
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

import numpy as np
from sklearn.linear_model import LogisticRegression

import vae_jax as vj
from benchmarks.__main__ import environment, load_average
from vae_jax.cli import main as cli

ORDERED = ("scale", "x", "y")  # factors whose values have an order, so that a correlation means something


def correlations(codes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Returns |correlation| [F, D] of factors [N, F] with the dimensions of codes [N, D]."""
    z = (codes - codes.mean(0)) / codes.std(0)
    f = (factors - factors.mean(0)) / factors.std(0)
    return np.abs(f.T @ z) / len(z)


def own_dimensions(found: np.ndarray) -> list[bool]:
    """Says of each factor whether it has a dimension of its own, from the correlations [F, D]."""
    own = found.argmax(1)
    others = [np.delete(found[:, dimension], row).max() for row, dimension in enumerate(own)]
    return [bool(best >= 0.95 and other <= 0.3) for best, other in zip(found.max(1), others, strict=True)]


def measure(run: vj.OpenRun) -> dict[str, Any]:
    """Returns what the run of one seed shows on the test split."""
    test = run.source("test")
    rows, names = np.arange(test.size), test.info.factor_names
    batch = run.examples("test", rows)
    factors, images = np.asarray(batch["factors"]), np.asarray(batch["x"])
    shape = factors[:, names.index("shape")]
    codes = np.asarray(run.encode(images).mean)
    active = codes[:, codes.var(0) > 0.01]
    order, half = np.random.default_rng(0).permutation(len(rows)), len(rows) // 2
    learned, asked = order[:half], order[half:]
    probe = LogisticRegression(max_iter=1000).fit(active[learned], shape[learned])
    on, shown = images > 0.5, np.asarray(run.decode(codes)) > 0.5
    pixels = (1, 2, 3)
    overlap = (on & shown).sum(pixels) / (on | shown).sum(pixels)
    found = correlations(active, factors[:, [names.index(name) for name in ORDERED]])
    metrics = json.loads((run.path / "eval.json").read_text())["metrics"]
    return {
        "seed": run.config.seed,
        "elbo": metrics["elbo"]["value"],
        "rate": metrics["rate"]["value"],
        "active_units": active.shape[1],
        "correlation": dict(zip(ORDERED, found.max(1).tolist(), strict=True)),
        "own_dimension": dict(zip(ORDERED, own_dimensions(found), strict=True)),
        "shape_accuracy": float(probe.score(active[asked], shape[asked])),
        "overlap": float(overlap.mean()),
    }


def train(seeds: str, steps: int | None, folder: Path) -> list[vj.OpenRun]:
    """Trains and evaluates the seeds; returns their runs."""
    words = ["sweep", "beta_vae", "--seeds", seeds, "--workdir", str(folder), "--quiet", "--metrics", "elbo"]
    words += ["--logging.tensorboard", "False", *(["--steps", str(steps)] if steps else [])]
    if cli.run(words) != 0:
        raise RuntimeError("the sweep failed")
    return [vj.load(path.parent) for path in sorted(folder.glob("*/config.json"))]


def main(arguments: list[str] | None = None) -> int:
    """Trains, measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0:5")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path, default=Path("results/studies/default_run.json"))
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--folder", type=Path, help="keeps the runs here")
    args = parser.parse_args(arguments)
    load, start = load_average(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        runs = train(args.seeds, args.steps, args.folder or Path(folder) / "sweep")
        seconds = time.perf_counter() - start
        rows = [measure(run) for run in runs]
        for run in runs if args.pictures else ():
            args.pictures.mkdir(parents=True, exist_ok=True)
            run.plot_traversals().savefig(args.pictures / f"seed{run.config.seed}.png")
    found = {
        "what": "what the default experiment learns, by seed, on the test split",
        "protocol": " ".join((__doc__ or "").split("[--folder DIR]. ")[1].split()),
        "steps": runs[0].config.steps,
        "seeds": args.seeds,
        "load_at_start": load,
        "environment": environment(),
        "all_own": sum(all(row["own_dimension"].values()) for row in rows),
        "elbo": {"mean": statistics.mean(r["elbo"] for r in rows), "sd": statistics.stdev(r["elbo"] for r in rows)},
        "least": {name: min(row[name] for row in rows) for name in ("shape_accuracy", "overlap")},
        "runs": rows,
        "train_seconds": round(seconds, 1),
    }
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    for row in rows:
        print(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
