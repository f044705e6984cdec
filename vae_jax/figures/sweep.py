"""Pictures of a sweep: the rate-distortion plane, and metrics against the value that varies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vae_jax.figures.curves import COLORS, unit
from vae_jax.figures.grid import save

_MEAN = "#333333"


def write_sweep(folder: Path, sweep: Mapping[str, Any], metrics: Sequence[str]) -> list[Path]:
    """Writes DIR/figures/rate_distortion.png (models with a rate) and DIR/figures/metrics.png; returns the files.

    Args:
      folder: made if it is not there.
      sweep: the content of `sweep.json`.
      metrics: to plot against the first option that varies.
    """
    folder.mkdir(exist_ok=True)
    written = []
    if any(_value(member, "rate") is not None for member in sweep["members"]):
        written.append(save(rate_distortion(sweep), folder / "rate_distortion.png"))
    if any(_value(member, name) is not None for member in sweep["members"] for name in metrics):
        written.append(save(against(sweep, metrics), folder / "metrics.png"))
    return written


def rate_distortion(sweep: Mapping[str, Any]) -> Figure:
    """Returns the rate-distortion plane (arXiv:1711.00464): a dot a member, the mean of each combination joined.

    Lines of constant ELBO fall at 45 degrees: distortion + rate = -ELBO.
    """
    groups = _combinations(sweep)
    figure = Figure((6.0, 4.6), dpi=100, layout="constrained")
    axes = figure.subplots()
    means = []
    for number, (values, members) in enumerate(groups.items()):
        points = [(_value(member, "rate"), _value(member, "distortion")) for member in members]
        seen = np.array([point for point in points if None not in point], np.float64)
        if not len(seen):
            continue
        color = COLORS[number % len(COLORS)]
        axes.plot(*seen.T, "o", ms=4.5, alpha=0.55, mew=0, color=color, label=_label(sweep, values))
        means.append(seen.mean(0))
    if len(means) > 1:
        path = np.array(sorted(means, key=lambda point: point[0]))
        axes.plot(*path.T, "-", color=_MEAN, lw=1.1, zorder=1)
        axes.plot(*path.T, "D", ms=5, mfc="white", mec=_MEAN, zorder=3, label="mean over seeds")
    _constant_elbo(axes)
    axes.set_xlabel("rate  KL(q(z|x) || p(z)), nats", fontsize=9)
    axes.set_ylabel("distortion  -log p(x|z), nats", fontsize=9)
    axes.set_title(f"{sweep['experiment']}: rate and distortion", fontsize=10)
    _style(axes)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _constant_elbo(axes: Axes) -> None:
    """Draws a few lines of constant ELBO behind the points, without moving the limits."""
    low_x, high_x = axes.get_xlim()
    low_y, high_y = axes.get_ylim()
    for total in np.linspace(low_x + low_y, high_x + high_y, 6)[1:-1]:
        axes.plot([low_x, high_x], [total - low_x, total - high_x], color="#bbbbbb", lw=0.7, ls=":", zorder=0)
        # At the left or upper edge, where the line enters.
        x = low_x if total - low_x <= high_y else total - high_y
        axes.annotate(f"ELBO {-total:.4g}", (x, total - x), (3, -2), textcoords="offset points", fontsize=6.5,
                      color="#888888", va="top")  # fmt: skip
    axes.set_xlim(low_x, high_x)
    axes.set_ylim(low_y, high_y)


def against(sweep: Mapping[str, Any], metrics: Sequence[str]) -> Figure:
    """Returns one panel a metric: members as dots, mean and sd over seeds, against the first option that varies.

    The other options that vary are curves of their own; without any, seeds stand beside each other.
    """
    shown = [name for name in metrics if any(_value(member, name) is not None for member in sweep["members"])]
    columns = min(3, len(shown))
    count = math.ceil(len(shown) / columns)
    figure = Figure((4.4 * columns, 3.3 * count + 0.4), dpi=100, layout="constrained")
    figure.suptitle(f"{sweep['experiment']}: {len(sweep['seeds'])} seeds, mean and sd", fontsize=10)
    panels = figure.subplots(count, columns, squeeze=False).ravel()
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    for name, axes in zip(shown, panels):
        _panel(axes, sweep, name)
    if len(sweep["vary"]) > 1:
        panels[0].legend(fontsize=8, frameon=False)
    return figure


def _panel(axes: Axes, sweep: Mapping[str, Any], metric: str) -> None:
    option = next(iter(sweep["vary"]), "seed")
    levels = list(sweep["vary"].get(option, [str(seed) for seed in sweep["seeds"]]))
    at, logarithmic = _positions(levels)
    curves: dict[tuple, dict[str, list[float]]] = {}
    for member in sweep["members"]:
        level = member["values"].get(option, str(member["seed"]))
        rest = tuple((o, v) for o, v in member["values"].items() if o != option)
        value = _value(member, metric)
        if value is not None:
            curves.setdefault(rest, {}).setdefault(level, []).append(value)
    for number, (rest, found) in enumerate(curves.items()):
        color = COLORS[number % len(COLORS)]
        x = np.array([at[level] for level in found])
        for position, values in zip(x, found.values()):
            axes.plot([position] * len(values), values, "o", ms=4, alpha=0.6, mfc="white", color=color)
        order = np.argsort(x)
        mean = np.array([np.mean(values) for values in found.values()])[order]
        spread = np.array([np.std(values, ddof=1) if len(values) > 1 else 0.0 for values in found.values()])[order]
        label = _label(sweep, dict(rest)) if rest else None
        line = "" if option == "seed" else "-"
        axes.errorbar(x[order], mean, spread, fmt=f"o{line}", ms=4.5, lw=1.2, capsize=3, color=color, label=label)
    if logarithmic:
        axes.set_xscale("log")
    axes.set_xticks([at[level] for level in levels], levels)
    axes.minorticks_off()
    axes.set_xlabel(option, fontsize=9)
    axes.set_ylabel(unit(metric), fontsize=9)
    axes.set_title(metric, fontsize=10)
    _style(axes)


def _positions(levels: Sequence[str]) -> tuple[dict[str, float], bool]:
    """Returns where each level stands: at its number (log scale if all are positive and wide apart), else in order."""
    try:
        numbers = [float(level) for level in levels]
    except ValueError:
        return {level: float(i) for i, level in enumerate(levels)}, False
    wide = min(numbers) > 0 and max(numbers) / min(numbers) > 5
    return dict(zip(levels, numbers)), wide


def _combinations(sweep: Mapping[str, Any]) -> dict[tuple, list[Mapping[str, Any]]]:
    groups: dict[tuple, list[Mapping[str, Any]]] = {}
    for member in sweep["members"]:
        groups.setdefault(tuple(member["values"].items()), []).append(member)
    return groups


def _label(sweep: Mapping[str, Any], values: Mapping | tuple) -> str:
    tails = [option.rpartition(".")[2] for option in sweep["vary"]]
    names = {o: tail if tails.count(tail) == 1 else o for o, tail in zip(sweep["vary"], tails)}
    return ", ".join(f"{names[option]} {value}" for option, value in dict(values).items()) or "a seed each"


def _value(member: Mapping[str, Any], metric: str) -> float | None:
    """Returns a metric of a member if it is there and finite."""
    value = member["metrics"].get(metric, {}).get("value")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _style(axes: Axes) -> None:
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, lw=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
