"""Training curves from metrics.jsonl."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from vae_jax.train.metrics import damage, read_lines

logger = logging.getLogger(__name__)

# metric -> (title, unit of the y axis)
PANELS = {
    "elbo": ("ELBO", "nats / example"),
    "distortion": ("distortion  -log p(x|z)", "nats / example"),
    "rate": ("rate  KL(q(z|x) || p(z))", "nats / example"),
    "mse": ("squared error of the reconstruction", "mean over entries"),
    "active_units": ("active units", "dimensions"),
    "beta": ("KL weight", "beta"),
}
# metric, or its end -> unit of the y axis of other figures; scores without a unit are not listed.
UNITS = {"bits_per_dim": "bits/dim", "psnr": "dB", "images_per_s": "images/s", "active_units": "dimensions"}
COLORS = ("#1f77b4", "#d1580c", "#2a8c4a", "#7b4fa3", "#b8860b", "#c23b6b", "#4c9a9a", "#6b6b6b")


def unit(metric: str) -> str:
    """Returns the unit of a metric for an axis, "" where it has none."""
    found = next((word for end, word in UNITS.items() if metric.endswith(end)), "")
    in_nats = metric in ("elbo", "distortion", "rate", "log_prob") or metric.startswith(("iw_", "kl/", "ais"))
    return found or ("nats" if in_nats else "")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Returns the readable lines of a run's metrics.jsonl, none if there is no such file; others are logged."""
    file = folder / "metrics.jsonl"
    found = read_lines(file)
    if damaged := damage(file, found):
        logger.warning(damaged)
    return found.lines


def curves(runs: Mapping[str, Sequence[Mapping[str, Any]]], *, title: str = "") -> Figure:
    """Returns the curves of one or more runs: ELBO, distortion, rate, active units, beta against the step.

    Args:
      runs: name -> lines of metrics.jsonl. Training is a line, held-out data are dots.
      title: of the figure.
    """
    names = [name for name in PANELS if any(_series(lines, name) for lines in runs.values())]
    if "elbo" in names and "mse" in names:
        names.remove("mse")  # held-out lines have it too; the ELBO's parts say more
    columns = min(3, max(1, len(names)))
    rows = max(1, math.ceil(len(names) / columns))
    figure = Figure((4.2 * columns, 2.9 * rows + 0.5), dpi=100, layout="constrained")
    figure.suptitle(title, fontsize=11)
    if not names:
        figure.text(0.5, 0.5, "no metrics yet", ha="center", va="center", color="#666666")
        return figure
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    for name, axes in zip(names, panels):
        _panel(axes, name, runs)
    panels[0].legend(fontsize=8, frameon=False)
    return figure


def _panel(axes: Any, name: str, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    alone = len(runs) == 1
    for number, (label, lines) in enumerate(runs.items()):
        for split, (steps, values) in _series(lines, name).items():
            seen.append((steps, values))
            color = COLORS[(number if not alone else split != "train") % len(COLORS)]
            style = {"lw": 1.4} if split == "train" and len(steps) > 1 else {"lw": 0, "marker": "o", "ms": 3.5}
            axes.plot(steps, values, color=color, label=split if alone else f"{label}, {split}", **style)
    title, unit = PANELS[name]
    axes.set_title(title, fontsize=10)
    axes.set_ylabel(unit, fontsize=9)
    axes.set_xlabel("step", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, lw=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g}k" if abs(x) >= 1000 else f"{x:g}")
    if name == "active_units":
        axes.yaxis.get_major_locator().set_params(integer=True)
    if name in ("beta", "active_units"):
        axes.set_ylim(0, 1.1 * max(1.0, *(float(values.max()) for _, values in seen)))
    elif (limits := _limits(seen)) is not None:
        axes.set_ylim(*limits)


def _series(lines: Sequence[Mapping[str, Any]], name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns split -> (steps, values) of one metric, where it is a finite number."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        value = line.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            found.setdefault(line.get("split", "train"), []).append((line["step"], value))
    return {split: (np.array(p)[:, 0], np.array(p)[:, 1]) for split, p in found.items()}


def _limits(seen: list[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float] | None:
    """Returns y limits that leave out the first twentieth of training, whose fall would flatten all that follows."""
    last = max(steps[-1] for steps, _ in seen)
    late = np.concatenate([values[steps > 0.05 * last] for steps, values in seen])
    if len(late) < 10:
        return None
    low, high = float(late.min()), float(late.max())
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return low - margin, high + margin
