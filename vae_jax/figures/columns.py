"""The columns of a table: how much of each a model reconstructs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from vae_jax.evaluation.columns import ColumnError

_BAR = "#1f77b4"
_MOST = 60  # columns in one figure


def columns_chart(errors: Sequence[ColumnError], *, title: str = "") -> Figure:
    """Returns a bar for each column, what is explained of it, with its error in units.

    Args:
      errors: of each column; of many the first 60 are shown, in the order of the table.
      title: of the figure.
    """
    shown = errors[:_MOST]
    values = np.array([e.explained for e in shown], np.float64)
    figure = Figure((7.5, 1.6 + 0.26 * len(shown)), dpi=100, layout="constrained")
    some = f", the first {_MOST} of {len(errors)} columns" if len(errors) > _MOST else ""
    figure.suptitle(f"{title}reconstructions by column{some}", fontsize=10)
    axes = figure.subplots()
    at = np.arange(len(shown))
    axes.barh(at, np.clip(np.nan_to_num(values), -1, 1), color=_BAR)
    words = [f"{e.measure} {e.value:.3g} (constant {e.constant:.3g})" for e in shown]
    for y, text in enumerate(words):
        axes.text(1.02, y, text, va="center", fontsize=8, transform=axes.get_yaxis_transform())
    # Names from outside may hold $, which would be read as the start of a formula.
    axes.set_yticks(at, [f"{e.name} ({e.kind})".replace("$", r"\$")[:40] for e in shown], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(min(0.0, float(np.clip(np.nan_to_num(values), -1, 1).min(initial=0.0))), 1)
    axes.set_xlabel("explained: 1 is exact, 0 no better than the best constant", fontsize=9)
    axes.grid(axis="x", alpha=0.25, lw=0.6)
    axes.set_axisbelow(True)
    return figure
