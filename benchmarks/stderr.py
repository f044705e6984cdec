"""Claimed standard errors of the disentanglement scores against their true spread over fresh rows.

Run: python -m benchmarks.stderr [--repeats 40] [--train 1000] [--only irs sap ...] [--out FILE]. About ten minutes on
2 cores at its defaults.

Codes are synthetic, so that rows can be drawn anew as often as one likes. Factors are a uniform sample of a grid; in
the population "clear" a code follows each factor through noise of its own size, and two more mix factors; in "mixed"
all of these are turned together and drowned, as codes of a poor model are. Every repetition draws rows and seed anew.
`ratio` is the root mean square of the claimed errors over the standard deviation of the scores: 1 is honest. `coverage`
is how often score +- 1.96 claimed errors holds the mean of all scores: 0.95 is honest. Both are themselves estimates,
from 40 repetitions good to 11 % and 0.035.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import jobs
from benchmarks.__main__ import environment
from vae_jax import metrics

SIZES = (3, 6, 8, 4)  # values of each factor
NOISE = (0.1, 0.3, 0.6, 1.0)  # of the code of each factor, whose standard deviation is 1


def rows(rng: np.random.Generator, n: int, population: str = "clear") -> tuple[np.ndarray, np.ndarray]:
    """Returns codes [n, 6] and factors [n, 4] of n fresh examples of a population, "clear" or "mixed"."""
    factors = np.stack([rng.integers(size, size=n) for size in SIZES], axis=1)
    unit = (factors - (np.asarray(SIZES) - 1) / 2) / np.sqrt((np.asarray(SIZES) ** 2 - 1) / 12)
    own = unit + np.asarray(NOISE) * rng.normal(size=unit.shape)
    mixed = np.stack([unit[:, 0] - unit[:, 1], unit[:, 2] * unit[:, 3]], axis=1) + 0.3 * rng.normal(size=(n, 2))
    codes = np.concatenate([own, mixed], axis=1)
    if population == "mixed":
        codes = codes @ np.random.default_rng(7).normal(size=(6, 6)) + 1.5 * rng.normal(size=codes.shape)
    return codes, factors


def scores(train: int) -> dict[str, Callable[[np.ndarray, np.ndarray, int], dict[str, Any]]]:
    """Returns metric -> (codes, factors, seed) -> its scores by name; `train` rows, and half as many where it tests."""
    tested = {"train": train, "test": train // 2}

    def parts(found: Any, *names: str) -> dict[str, Any]:
        return {name: getattr(found, name) for name in names}

    def three(method: metrics.Method):
        def score(z, y, seed):
            found = metrics.dci(z, y, method=method, seed=seed, **tested)
            return parts(found, "disentanglement", "completeness", "informativeness")

        return score

    def mec(z, y, seed):
        return parts(metrics.info_mec(z[:train], y[:train], seed=seed), "modularity", "compactness", "explicitness")

    return {
        "mig": lambda z, y, seed: {"": metrics.mig(z[:train], y[:train], seed=seed)},
        "rmig": lambda z, y, seed: {"": metrics.rmig(z[:train], y[:train], seed=seed)},
        "jemmig": lambda z, y, seed: {"": metrics.jemmig(z[:train], y[:train], seed=seed)},
        "modularity": lambda z, y, seed: {"": metrics.modularity(z[:train], y[:train], seed=seed)},
        "irs": lambda z, y, seed: {"": metrics.irs(z[:train], y[:train], seed=seed)},
        "betavae_score": lambda z, y, seed: {"": metrics.betavae_score(z[:train], y[:train], seed=seed, **tested)},
        "factorvae_score": lambda z, y, seed: {"": metrics.factorvae_score(z[:train], y[:train], seed=seed, **tested)},
        "sap": lambda z, y, seed: {"": metrics.sap(z, y, seed=seed, **tested)},
        "explicitness": lambda z, y, seed: {"": metrics.explicitness(z, y, seed=seed, **tested)},
        "dci_linear": three("lasso"),
        "dci_logistic": three("logistic"),
        "info_mec": mec,
    }


def measure(metric: str, population: str, train: int, repeats: int, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Returns, for each score of a metric, its mean, true spread, claimed error, their ratio, and coverage."""
    score, start = scores(train)[metric], time.perf_counter()
    found: list[dict[str, Any]] = []
    for r in range(repeats):
        codes, factors = rows(np.random.default_rng([seed, r]), train + train // 2, population)
        found.append(score(codes, factors, r))
    out = {}
    for name in found[0]:
        values = np.array([f[name].value for f in found])
        errors = np.array([f[name].stderr for f in found], np.float64)
        spread, claimed = float(values.std(ddof=1)), float(np.sqrt(np.mean(errors**2)))
        out["_".join(filter(None, (metric, name)))] = {
            "mean": float(values.mean()),
            "spread": spread,
            "claimed": claimed,
            "ratio": claimed / spread if spread else None,  # a score at its limit does not spread
            "coverage": float(np.mean(np.abs(values - values.mean()) <= 1.96 * errors)),
            "seconds": round((time.perf_counter() - start) / repeats, 2),
        }
    return out


def main(argv: list[str] | None = None) -> int:
    """Measures every score in both populations, prints a line each and writes them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stderr", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=40, help="draws of fresh rows")
    parser.add_argument("--train", type=int, default=1000, help="rows to learn from; half as many to test with")
    parser.add_argument("--only", nargs="+", default=list(scores(2)), choices=list(scores(2)), help="metrics")
    parser.add_argument("--out", type=Path, default=jobs.ROOT / "results" / "studies" / "stderr.json")
    args = parser.parse_args(argv)
    found: dict[str, dict[str, Any]] = {}
    for population in ("clear", "mixed"):
        for metric in args.only:
            for name, seen in measure(metric, population, args.train, args.repeats).items():
                found.setdefault(name, {})[population] = seen
                ratio = "-" if seen["ratio"] is None else f"{seen['ratio']:.2f}"
                print(f"{population:6} {name:30} ratio {ratio} coverage {seen['coverage']:.2f}", flush=True)
    about = {"repeats": args.repeats, "train": args.train, "test": args.train // 2, **environment()}
    args.out.write_text(json.dumps({"protocol": about, "scores": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
