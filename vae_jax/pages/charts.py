"""Line, bar and scatter charts as SVG text; colors are classes, so that the page's style follows light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 56, 20, 12, 42
POINTS = 500  # a longer curve is thinned


class Series(NamedTuple):
    """One curve or cloud.

    Attributes:
      label: its name, in the legend.
      x: values [N].
      y: values [N].
      color: number of the color.
      dots: draw dots in place of a line.
    """

    label: str
    x: np.ndarray
    y: np.ndarray
    color: int = 0
    dots: bool = False


class Frame:
    """The axes of a chart: from values to SVG units, with ticks at round numbers."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], height: int = HEIGHT, left: int = LEFT) -> None:
        self.x, self.y, self.height, self.left = _widened(x), _widened(y), height, left

    def at(self, x: float, y: float) -> tuple[str, str]:
        """Returns the place of a value."""
        (x0, x1), (y0, y1) = self.x, self.y
        across = self.left + (x - x0) / (x1 - x0) * (WIDTH - self.left - RIGHT)
        down = self.height - BOTTOM - (y - y0) / (y1 - y0) * (self.height - BOTTOM - TOP)
        return f"{across:.1f}", f"{down:.1f}"

    def path(self, x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, join: str = "L") -> str:
        """Returns path data through the points; with `join` "M" each point stands alone (a dot, with a round cap)."""
        spots = [self.at(a, b) for a, b in zip(x, y)]
        if join == "M":
            return "".join(f"M{a} {b}h0" for a, b in spots)
        return "M" + "L".join(f"{a} {b}" for a, b in spots) if spots else ""

    def axes(self, xlabel: str, ylabel: str, *, xticks: bool = True) -> str:
        """Returns grid lines, tick labels and titles of both axes."""
        right, bottom = WIDTH - RIGHT, self.height - BOTTOM
        out = []
        for value in ticks(*self.y, 5):
            _, down = self.at(self.x[0], value)
            out.append(f'<path class="grid" d="M{self.left} {down}H{right}"/>')
            out.append(f'<text class="tick" x="{self.left - 6}" y="{down}" dy=".32em" text-anchor="end">'
                       f"{number(value)}</text>")  # fmt: skip
        for value in ticks(*self.x, 6) if xticks else ():
            across, _ = self.at(value, self.y[0])
            out.append(f'<text class="tick" x="{across}" y="{bottom + 15}" text-anchor="middle">{number(value)}</text>')
        out.append(f'<path class="axis" d="M{self.left} {bottom}H{right}"/>')
        middle = (self.left + right) / 2
        out.append(f'<text class="title" x="{middle:.0f}" y="{self.height - 8}" text-anchor="middle">'
                   f"{escape(xlabel)}</text>")  # fmt: skip
        out.append(f'<text class="title" transform="translate(13 {(TOP + bottom) / 2:.0f}) rotate(-90)" '
                   f'text-anchor="middle">{escape(ylabel)}</text>')  # fmt: skip
        return "".join(out)


def _widened(span: tuple[float, float]) -> tuple[float, float]:
    low, high = float(span[0]), float(span[1])
    if high > low:
        return low, high
    room = 0.05 * abs(low) or 0.5
    return low - room, high + room


def ticks(low: float, high: float, most: int) -> list[float]:
    """Returns round numbers between low and high, at most `most` or so of them."""
    from matplotlib.ticker import MaxNLocator

    margin = 1e-9 * (high - low)
    values = MaxNLocator(nbins=most, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(v) for v in values if low - margin <= v <= high + margin]


def number(value: float) -> str:
    """Returns a tick label: 12k for 12,000, and no long tails."""
    if value and (abs(value) >= 1e6 or abs(value) < 1e-3):
        return f"{value:.2g}"
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:.6g}"


def brief(value: float) -> str:
    """Returns four digits of a number, all of them where it is large."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def svg(body: str, label: str, height: int = HEIGHT) -> Markup:
    """Returns an SVG picture that a screen reader calls by `label`."""
    head = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
    return Markup(f"{head}{body}</svg>")


def lines(series: Sequence[Series], xlabel: str, ylabel: str, label: str, *, zero: bool = False) -> Markup:
    """Returns curves over steps; the fall of the first twentieth does not set the scale.

    Args:
      series: the curves; dots are held-out data.
      xlabel: title of the x axis.
      ylabel: title of the y axis, with its unit.
      label: what the picture shows, in words.
      zero: let the y axis begin at 0.

    Returns:
      an inline SVG.
    """
    last = max(float(s.x[-1]) for s in series)
    kept = np.concatenate([s.y[s.x > 0.05 * last] for s in series])
    if len(kept) < 10:
        kept = np.concatenate([s.y for s in series])
    low, high = float(kept.min()), float(kept.max())
    margin = 0.05 * (high - low)
    frame = Frame((0.0, last), (0.0 if zero else low - margin, high + margin))
    out = [frame.axes(xlabel, ylabel)]
    for s in series:
        inside = (s.y >= frame.y[0]) & (s.y <= frame.y[1])
        x, y = s.x[inside], s.y[inside]
        # Thinned from the end: the last value is the one that counts.
        rows = np.arange(len(x))[:: -max(1, math.ceil(len(x) / POINTS))][::-1]
        if s.dots or len(rows) == 1:
            out.append(f'<path class="dots c{s.color % 10}" d="{frame.path(x[rows], y[rows], "M")}"/>')
        else:
            out.append(f'<path class="curve c{s.color % 10}" d="{frame.path(x[rows], y[rows])}"/>')
    return svg("".join(out), label)


def bars(names: Sequence[str], values: np.ndarray, lit: np.ndarray, ylabel: str, label: str) -> Markup:
    """Returns a bar chart; bars that are not `lit` are gray. Numbers that are not finite have no bar.

    Args:
      names: of the latent dimensions, under the bars.
      values: KL of each dimension, nats [D].
      lit: bool [D], which dimensions are active.
      ylabel: title of the y axis, with its unit.
      label: what the picture shows, in words.

    Returns:
      an inline SVG.
    """
    heights = np.nan_to_num(np.asarray(values, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    frame = Frame((0.0, float(len(names))), (0.0, max(1.05 * float(heights.max(initial=0.0)), 0.1)))
    out = [frame.axes("latent dimension, sorted by KL", ylabel, xticks=False)]
    every = max(1, math.ceil(len(names) / 16))
    for i, (name, height, on) in enumerate(zip(names, heights, lit)):
        (x0, y0), (x1, y1) = frame.at(i + 0.12, height), frame.at(i + 0.88, 0.0)
        kind, wide, tall = "bar" if on else "bar off", float(x1) - float(x0), float(y1) - float(y0)
        out.append(f'<rect class="{kind}" x="{x0}" y="{y0}" width="{wide:.1f}" height="{tall:.1f}">'
                   f"<title>{escape(name)}: {height:.3g}</title></rect>")  # fmt: skip
        if i % every == 0:
            middle, _ = frame.at(i + 0.5, 0.0)
            out.append(f'<text class="tick" x="{middle}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">'
                       f"{escape(name)}</text>")  # fmt: skip
    return svg("".join(out), label)


def cloud(series: Sequence[Series], label: str, *, ramp: bool = False, names: bool = True) -> Markup:
    """Returns a square map of points without units, each class with its name in the middle of its points.

    Args:
      series: one class each; `label` "" has no name.
      label: what the picture shows, in words.
      ramp: the colors are steps of a scale from low to high, not of classes.
      names: write the names of the classes into the map.

    Returns:
      an inline SVG.
    """
    size = WIDTH
    x, y = (np.concatenate([getattr(s, axis) for s in series]) for axis in "xy")
    spans = [_widened((float(v.min()), float(v.max()))) for v in (x, y)]
    spots = []
    out = [f'<rect class="plot" x="1" y="1" width="{size - 2}" height="{size - 2}" rx="6"/>']
    for s in series:
        across = 14 + (s.x - spans[0][0]) / (spans[0][1] - spans[0][0]) * (size - 28)
        down = size - 14 - (s.y - spans[1][0]) / (spans[1][1] - spans[1][0]) * (size - 28)
        data = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in zip(across, down))
        out.append(f'<path class="points {"s" if ramp else "c"}{s.color % 10}" d="{data}"/>')
        if names and s.label and len(s.x):
            spots.append((float(np.median(across)), float(np.median(down)), s.label))
    # Names last: no later class may cover them, nor one name another (the legend has them all).
    written: list[tuple[float, float, str]] = []
    for a, b, text in spots:
        if all(abs(b - d) > 15 or abs(a - c) > 4 * (len(text) + len(other)) for c, d, other in written):
            written.append((a, b, text))
    out += [f'<text class="name" x="{a:.0f}" y="{b:.0f}" dy=".35em" text-anchor="middle">{escape(text)}</text>'
            for a, b, text in written if 2 * len(written) > len(spots)]  # fmt: skip
    return svg("".join(out), label, size)


def rate_distortion(points: Sequence[tuple[Series, float, float]], paths: Sequence[Series], label: str) -> Markup:
    """Returns distortion against rate, with lines of equal ELBO.

    Args:
      points: one run each, (one point, standard error of the rate, of the distortion).
      paths: how training went, thin behind the points.
      label: what the picture shows, in words.
    """
    x = np.concatenate([p.x for p, _, _ in points])
    y = np.concatenate([p.y for p, _, _ in points])
    late = [s for s in paths if len(s.x) > 4]
    ends = [(s.x[len(s.x) // 4 :], s.y[len(s.x) // 4 :]) for s in late]
    all_x, all_y = np.concatenate([x, *(a for a, _ in ends)]), np.concatenate([y, *(b for _, b in ends)])
    room_x, room_y = (0.1 * float(np.ptp(v)) or 0.1 * abs(float(v[0])) or 0.5 for v in (all_x, all_y))
    frame = Frame(
        (max(0.0, float(all_x.min()) - room_x), float(all_x.max()) + room_x),
        (float(all_y.min()) - room_y, float(all_y.max()) + room_y),
        height=320,
    )
    out = [frame.axes("rate, nats", "distortion, nats")]
    sums = ticks(frame.x[0] + frame.y[0], frame.x[1] + frame.y[1], 7)
    for total in sums:
        # D = -ELBO - R, cut at the frame.
        first, last = max(frame.x[0], total - frame.y[1]), min(frame.x[1], total - frame.y[0])
        if last > first:
            line = frame.path((first, last), (total - first, total - last))
            across, down = frame.at(first, total - first)
            out.append(f'<path class="iso" d="{line}"/>')
            if float(down) > frame.height - BOTTOM - 16:
                continue  # its name would stand on the axis
            out.append(f'<text class="iso-name" x="{float(across) + 4:.1f}" y="{float(down) + 12:.1f}">'
                       f"ELBO {number(-total)}</text>")  # fmt: skip
    for s, (a, b) in zip(late, ends):
        out.append(f'<path class="trace c{s.color % 10}" d="{frame.path(a, b)}"/>')
    for s, dx, dy in points:
        px, py = float(s.x[0]), float(s.y[0])
        cross = frame.path((px - dx, px + dx), (py, py)) + frame.path((px, px), (py - dy, py + dy))
        across, down = frame.at(px, py)
        anchor, shift = ("end", -8) if float(across) > WIDTH * 0.6 else ("start", 8)
        out.append(f'<path class="curve c{s.color % 10}" d="{cross}"/>'
                   f'<path class="dots big c{s.color % 10}" d="M{across} {down}h0"/>'
                   f'<text class="name" x="{float(across) + shift:.1f}" y="{float(down) - 9:.1f}" '
                   f'text-anchor="{anchor}">{escape(s.label)}</text>')  # fmt: skip
    return svg("".join(out), label, 320)
