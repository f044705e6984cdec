"""What the latent dimensions carry: a bar chart, and traversals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from vae_jax.evaluation.latents import Walk, by_size
from vae_jax.figures.grid import grid
from vae_jax.train.metrics import ACTIVE_VARIANCE

_ACTIVE, _UNUSED, _LINE = "#1f77b4", "#b9bec4", "#c23b22"


def kl_chart(kl: Sequence[float], variance: Sequence[float], *, title: str = "") -> Figure:
    """Returns two bar charts over latent dimensions, sorted by KL: KL in nats, and Var_x(E[z|x]) with its threshold.

    Args:
      kl: mean KL of each dimension, nats [D].
      variance: Var_x(E[z|x]) of each dimension [D]; active above 0.01 (arXiv:1509.00519).
      title: of the figure.
    """
    order = by_size(np.asarray(kl, np.float64))
    size = len(order)
    bars = np.nan_to_num(np.asarray(kl, np.float64)[order], nan=0.0, posinf=0.0, neginf=0.0)
    spread = np.nan_to_num(np.asarray(variance, np.float64)[order], nan=0.0, posinf=0.0)
    active = spread > ACTIVE_VARIANCE
    figure = Figure((min(14.0, max(5.0, 0.32 * size + 1.5)), 5.2), dpi=100, layout="constrained")
    count = f"{int(active.sum())} of {size} dimensions active, rate {bars.sum():.1f} nats"
    figure.suptitle(f"{title}\n{count}" if title else count, fontsize=10)
    upper, lower = figure.subplots(2, 1, sharex=True)
    at = np.arange(size)
    colors = np.where(active, _ACTIVE, _UNUSED).tolist()
    upper.bar(at, bars, color=colors)
    upper.set_ylabel("KL, nats", fontsize=9)
    upper.set_ylim(0, max(1.08 * float(bars.max(initial=0.0)), 0.1))
    floor = 1e-5
    lower.bar(at, np.maximum(spread, floor), color=colors)
    lower.axhline(ACTIVE_VARIANCE, color=_LINE, lw=1, ls="--")
    # Beside the bars, which would lie behind it.
    lower.text(1.01, ACTIVE_VARIANCE, f"active\nabove {ACTIVE_VARIANCE:g}", color=_LINE, fontsize=8, va="center",
               transform=lower.get_yaxis_transform())  # fmt: skip
    lower.set_yscale("log")
    lower.set_ylim(floor, max(3.0, 1.5 * float(spread.max(initial=0.0))))
    lower.set_ylabel("variance of E[z|x] over x", fontsize=9)
    lower.set_xlabel("latent dimension, sorted by KL", fontsize=9)
    every = max(1, -(-size // 40))
    lower.set_xticks(at[::every], [f"z{d}" for d in order[::every]], fontsize=8, rotation=90 if size > 20 else 0)
    for axes in (upper, lower):
        axes.tick_params(axis="y", labelsize=8)
        axes.grid(axis="y", alpha=0.25, lw=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return figure


def traversal_grid(images: np.ndarray, walk: Walk, *, title: str = "") -> Figure:
    """Returns the images [R, S, H, W, C] of a traversal, one row per dimension, with its KL beside it."""
    rows, ylabel = [f"z{d}  sd {s:.2f}" for d, s in zip(walk.dims, walk.std)], "dimension, standard deviation"
    if walk.kl is not None:
        rows, ylabel = [f"z{d}  KL {k:.2f}" for d, k in zip(walk.dims, walk.kl)], "dimension, KL in nats"
    xlabel = {"": "value of the dimension", "sd": "standard deviations of the dimension", "%": "quantile of the codes"}
    size = walk.variables or walk.codes.shape[-1]
    some = f", {len(walk.dims)} of {size} dimensions" if len(walk.dims) < size else ""
    some += f", {walk.words_for_unused}" if walk.unused else ""
    return grid(
        images,
        title=title + some,
        rows=rows,
        columns=[f"{m:.3g} %" if walk.unit == "%" else signed(m) for m in walk.marks],
        xlabel=f"{xlabel[walk.unit]}, the others fixed at those of one image",
        ylabel=ylabel,
    )


def signed(value: float) -> str:
    """Returns "-2.5", "0" or "+2.5"."""
    return "0" if abs(value) < 1e-9 else f"{value:+.2g}"
