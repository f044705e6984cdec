"""What the default experiment can show: seeds of KL schedules and decoders, trained as one program each.

Run: python -m benchmarks.gpu.default_run --out DIR [--seeds 0:5] [--only NAME ...] [--jobs N]. Writes `DIR/found.json`
and one picture a case. A seed passes if x, y and scale are each in a dimension of their own: the greatest correlation
of the factor with a dimension is .95 or more, and that dimension's with the two others at most .3. Shapes are measured
by the overlap (intersection over union) of test images and reconstructions, and by the accuracy of a logistic
regression on the codes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

FACTORS = {"scale": 1, "x": 3, "y": 4}
SHAPES = ("square", "ellipse", "heart")


def _case(beta: float, start: float, hold: int, steps: int, **more: Any) -> list[str]:
    words = ["--model.objective.beta", beta, "--model.objective.schedule", "linear"]
    words += ["--model.objective.schedule.start", start / beta, "--model.objective.schedule.steps", steps]
    words += ["--model.objective.schedule.hold", hold]
    for name, value in more.items():
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--{name.replace('__', '.')}", *values]
    return [str(word) for word in words]


WIDE = {"model__network__pixel_hidden": (64, 64, 64)}
WIDEST = {"model__network__pixel_hidden": (128, 128, 128)}
UP = {"model__network__pixel_hidden": (64, 64), "model__network__up": (64, 32)}
UP_ONE = {"model__network__pixel_hidden": (64, 64), "model__network__up": (32,)}
LR = {"optimizer__lr": 2e-3}
CASES: dict[str, list[str]] = {
    "now": [],
    "wide-lr2": _case(1.0, 6.0, 1500, 500, **LR, **WIDE),
    "wide-lr2-half": _case(0.5, 6.0, 1500, 500, **LR, **WIDE),
    "widest": _case(1.0, 6.0, 1500, 500, **WIDEST),
    "up": _case(1.0, 6.0, 1500, 500, **UP),
    "up-lr2": _case(1.0, 6.0, 1500, 500, **LR, **UP),
    "up-lr2-half": _case(0.5, 6.0, 1500, 500, **LR, **UP),
    "up-one": _case(1.0, 6.0, 1500, 500, **UP_ONE),
    "up-one-lr2-from12": _case(1.0, 12.0, 1500, 500, **LR, **UP_ONE),
    "up-one-lr2-half": _case(0.5, 6.0, 1500, 500, **LR, **UP_ONE),
}


def correlations(mean: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Returns |correlation| of x, y and scale with each dimension [3, D]."""
    z = (mean - mean.mean(0)) / (mean.std(0) + 1e-9)
    f = factors[:, list(FACTORS.values())].astype(np.float64)
    f = (f - f.mean(0)) / f.std(0)
    return np.abs(f.T @ z) / len(z)


def separate(found: np.ndarray) -> bool:
    """Says whether each factor [3, D] has a dimension of its own."""
    own = found.argmax(1)
    rest = [np.delete(found[:, dim], row).max() for row, dim in enumerate(own)]
    return bool(len(set(own)) == len(own) and found.max(1).min() >= 0.95 and max(rest) <= 0.3)


def measure(folder: Path) -> dict[str, Any]:
    """Returns what one trained seed shows, on 2,000 test images."""
    import jax
    from sklearn.linear_model import LogisticRegression

    from vae_jax.evaluation import encode_all
    from vae_jax.runs.run import Run

    run = Run.load(folder)
    state = run.restore()
    batch = run.examples("test", np.arange(2000))
    codes = encode_all(run.model, state, [batch])
    factors = np.asarray(batch["factors"])
    shape = factors[:, 0]
    probe = LogisticRegression(max_iter=500).fit(codes.mean[:1500], shape[:1500])
    params, latents = state.eval_params, codes.mean
    decoded = jax.jit(run.model.decode)(params, state.model_state, latents).mean()
    shown, real = np.asarray(decoded) > 0.5, np.asarray(batch["x"]) > 0.5
    axes = (1, 2, 3)
    overlap = (shown & real).sum(axes) / np.maximum((shown | real).sum(axes), 1)
    found = correlations(codes.mean, factors)
    results = json.loads((folder / "eval.json").read_text())["metrics"]
    return {
        "seed": run.config.seed,
        "elbo": results["elbo"]["value"],
        "rate": results["rate"]["value"],
        "active": int((codes.mean.var(0) > 0.01).sum()),
        "correlations": {name: found[i].round(3).tolist() for i, name in enumerate(FACTORS)},
        "separate": separate(found),
        "shape_accuracy": float(probe.score(codes.mean[1500:], shape[1500:])),
        "overlap": {name: float(overlap[shape == i].mean()) for i, name in enumerate(SHAPES)},
        "shown": np.concatenate([real[:16], shown[:16]]).astype(int).tolist() if run.config.seed == 0 else None,
    }


def picture(rows: list[Any], path: Path) -> None:
    """Writes test images above their reconstructions."""
    from PIL import Image

    pixels = 255 - 255 * np.array(rows, np.uint8)[..., 0]
    lines = [np.concatenate(list(pixels[i : i + 16]), 1) for i in range(0, 32, 16)]
    Image.fromarray(np.concatenate(lines, 0)).resize((16 * 32 * 2, 2 * 32 * 2), 0).save(path)


def train(name: str, seeds: str, folder: Path, more: list[str]) -> None:
    """Trains and measures one case in this process."""
    from vae_jax.cli import main as cli

    start = time.perf_counter()
    words = ["sweep", "beta_vae", "--seeds", seeds, "--workdir", str(folder / name), "--quiet"]
    words += ["--logging.tensorboard", "False", "--metrics", "elbo", *CASES[name], *more]
    if cli.run(words) != 0:
        raise SystemExit(f"{name}: the sweep failed")
    trained = time.perf_counter() - start
    members = sorted(path.parent for path in (folder / name).glob("*/config.json"))
    found = [measure(member) for member in members]
    for row in found:
        if (shown := row.pop("shown")) is not None:
            picture(shown, folder / f"{name}.png")
    result = {"options": CASES[name], "train_seconds": round(trained, 1), "seeds": found}
    (folder / f"{name}.json").write_text(json.dumps(result))


def main() -> int:
    """Trains the cases, several at a time, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="0:5")
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--here", help=argparse.SUPPRESS)
    args, more = parser.parse_known_args()  # what is left is an option of training, as --steps 4000
    args.out.mkdir(parents=True, exist_ok=True)
    if args.here:
        train(args.here, args.seeds, args.out, more)
        return 0

    def job(name: str) -> int:
        words = [sys.executable, "-m", "benchmarks.gpu.default_run", "--out", str(args.out), "--seeds", args.seeds]
        env = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        done = subprocess.run([*words, "--here", name, *more], env=env, capture_output=True, text=True)
        print(name, "ok" if done.returncode == 0 else done.stderr[-1500:], flush=True)
        return done.returncode

    with ThreadPoolExecutor(args.jobs) as pool:
        codes = list(pool.map(job, args.only))
    found = {n: json.loads(p.read_text()) for n in args.only if (p := args.out / f"{n}.json").is_file()}
    (args.out / "found.json").write_text(json.dumps(found, indent=1))
    for name, case in found.items():
        rows = case["seeds"]
        overlap = {s: np.mean([r["overlap"][s] for r in rows]).round(2) for s in SHAPES}
        print(
            f"{name:22} {sum(r['separate'] for r in rows)}/{len(rows)} separate  elbo "
            f"{np.mean([r['elbo'] for r in rows]):.1f}  rate {np.mean([r['rate'] for r in rows]):.1f}  shape "
            f"{np.mean([r['shape_accuracy'] for r in rows]):.2f}  overlap {overlap}  {case['train_seconds']} s"
        )
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
