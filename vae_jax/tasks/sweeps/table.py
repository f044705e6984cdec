"""The numbers of a sweep over its seeds: mean, spread and best of each combination of values."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.evaluation.reading import better, digits
from vae_jax.files.atomic import replacing

logger = logging.getLogger(__name__)
COLUMNS = ("metric", "n", "mean", "sd", "best", "best_seed", "diverged")


def rows(sweep: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns one row per combination of values and metric.

    Args:
      sweep: the content of `sweep.json`.

    Returns:
      rows of `values` {option: value}, `metric`, `n` (seeds with a finite number), `mean`, `sd` (over seeds, ddof 1;
      None for one seed), `best` and `best_seed` (None where neither more nor less is better) and `diverged` (seeds).
    """
    combinations: dict[tuple, list[Mapping[str, Any]]] = {}
    for member in sweep["members"]:
        combinations.setdefault(tuple(member["values"].items()), []).append(member)
    names = list(dict.fromkeys(name for member in sweep["members"] for name in member["metrics"]))
    out = []
    for values, members in combinations.items():
        lost = sum(member["state"] == "diverged" for member in members)
        for name in names:
            seen = [
                (member["metrics"][name]["value"], member["seed"])
                for member in members
                if name in member["metrics"] and _finite(member["metrics"][name]["value"])
            ]
            out.append({"values": dict(values), **_row(name, seen), "diverged": lost})
    return out


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _row(name: str, seen: Sequence[tuple[float, int]]) -> dict[str, Any]:
    numbers = np.asarray([value for value, _ in seen], np.float64)
    best: tuple[Any, Any] = (None, None)
    if seen and better(name):
        best = min(seen) if better(name) == "less" else max(seen, key=lambda pair: pair[0])
    return {
        "metric": name,
        "n": len(seen),
        "mean": float(numbers.mean()) if seen else None,
        "sd": float(numbers.std(ddof=1)) if len(seen) > 1 else None,
        "best": best[0],
        "best_seed": best[1],
    }


def main_metrics(sweep: Mapping[str, Any]) -> list[str]:
    """Returns the metrics to show: those requested, else ELBO, rate and distortion (mse of an autoencoder)."""
    found = list(dict.fromkeys(name for member in sweep["members"] for name in member["metrics"]))
    if sweep["metrics"]:
        asked = [name for name in found if name in sweep["metrics"]]
        # A group of metrics or a measure of several has other names than what was requested.
        return asked if len(asked) == len(sweep["metrics"]) else [n for n in found if better(n)] or found
    return [name for name in ("elbo", "rate", "distortion") if name in found] or found[:1]


def write(folder: Path, sweep: dict[str, Any]) -> None:
    """Puts the table into `sweep` and writes DIR/sweep.csv and DIR/figures/*.png."""
    sweep["table"] = rows(sweep)
    options = list(sweep["vary"])
    with replacing(folder / "sweep.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*options, *COLUMNS])
        for row in sweep["table"]:
            writer.writerow([*(row["values"][o] for o in options), *(row[name] for name in COLUMNS)])
    try:
        from vae_jax.figures.sweep import write_sweep

        write_sweep(folder / "figures", sweep, main_metrics(sweep))
    except Exception:  # a picture must never cost the sweep; the log says why it is missing
        logger.exception("figures of the sweep failed")


def print_table(sweep: Mapping[str, Any]) -> None:
    """Prints the table: one row per combination of values, the metrics beside each other."""
    from rich.console import Console
    from rich.table import Table

    from vae_jax.tasks.sweeps.plan import short_names

    metrics, labels = main_metrics(sweep), short_names(sweep["vary"])
    table = Table(title=f"{sweep['experiment']}: {len(sweep['seeds'])} seeds each", title_justify="left")
    for option, values in sweep["vary"].items():
        longest = max(map(len, (labels[option], *values)))
        table.add_column(labels[option], justify="right", min_width=min(longest, 20), overflow="fold")
    table.add_column("n", justify="right")
    if any(row["diverged"] for row in sweep["table"]):
        table.add_column("diverged", justify="right", no_wrap=True)
    first = next((name for name in metrics if better(name)), None)
    for name in metrics:
        table.add_column(f"{name}\nmean ± sd", justify="right", no_wrap=True)
        if name == first:
            table.add_column("best\n(seed)", justify="right", no_wrap=True)
    combinations: dict[tuple, dict[str, Any]] = {}
    for row in sweep["table"]:
        combinations.setdefault(tuple(row["values"].items()), {})[row["metric"]] = row
    for values, found in combinations.items():
        cells = [value for _, value in values]
        cells.append(str(max((row["n"] for row in found.values()), default=0)))
        if any(row["diverged"] for row in sweep["table"]):
            cells.append(str(max(row["diverged"] for row in found.values())))
        for name in metrics:
            row = found[name]
            spread = "" if row["sd"] is None else f" ± {row['sd']:.2g}"
            cells.append("-" if row["mean"] is None else digits(name, row["mean"]) + spread)
            if name == first:
                cells.append("-" if row["best"] is None else f"{digits(name, row['best'])} ({row['best_seed']})")
        table.add_row(*cells)
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(table)
    for member in sweep["members"]:
        if member["diverged"]:
            names, step = member["diverged"]["what"], member["diverged"]["step"]
            what = "the loss" if "loss" in names else " and ".join(names)
            console.print(f"{member['name']} diverged: {what} was not finite at step {step}", soft_wrap=True)
