"""Series as lines: one small plot per example, one line per channel."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from vae_jax.errors import InputError, either
from vae_jax.figures.grid import bound_words

MOST_PLOTS, MOST_LINES = 64, 16  # of more no eye follows one
_INK = "#222222"


def lines(series: np.ndarray, made: np.ndarray | None = None, *, title: str = "") -> Figure:
    """Returns a plot of each series against time, in the user's units; all have one scale.

    Of more than `MOST_PLOTS` series the first are drawn, which the title and a note say.

    Args:
      series: [N, T, C].
      made: reconstructions [N, T, C], drawn with dashes.
      title: of the figure.

    Returns:
      a matplotlib figure, not yet written.

    Raises:
      InputError: too many channels for one plot.
    """
    count, _, channels = series.shape
    if channels > MOST_LINES:
        fix = either("end --out with .npy", "use their arrays")
        what = either("--out", "figure")
        raise InputError(
            f"{what}: series of {channels} channels are too many lines for one plot, which shows {MOST_LINES}; {fix}"
        )
    if count > MOST_PLOTS:
        title, count = f"{title} ({bound_words(MOST_PLOTS, count, 'series')})", MOST_PLOTS
    columns = min(count, max(1, round(math.sqrt(count))))
    rows = -(-count // columns)
    figure = Figure((2.4 * columns + 0.6, 1.5 * rows + 0.8), facecolor="white", layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for i, plot in enumerate(axes):
        if i >= count:
            plot.set_visible(False)
            continue
        for c in range(channels):
            color = f"C{c % 10}"
            plot.plot(series[i, :, c], color=color, linewidth=1)
            if made is not None:
                plot.plot(made[i, :, c], color=color, linewidth=1, linestyle="--")
        plot.tick_params(labelsize=7, colors=_INK)
    figure.suptitle(title, fontsize=9, color=_INK)
    figure.supxlabel("time step", fontsize=8, color=_INK)
    figure.supylabel("value, in the units of the data", fontsize=8, color=_INK)
    return figure
