"""The pictures of each section: charts and grids with the words that go with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from vae_jax.pages import charts
from vae_jax.pages.charts import Series
from vae_jax.pages.pictures import Picture, tiles

if TYPE_CHECKING:
    from vae_jax.pages.views import Entry, Plane

# metric -> (title, unit, the axis begins at 0)
CURVES = {
    "elbo": ("ELBO", "nats per example", False),
    "distortion": ("distortion", "nats per example", False),
    "rate": ("rate", "nats per example", False),
    "mse": ("squared error", "mean over entries", False),
    "accuracy": ("accuracy", "share", False),
    "active_units": ("active units", "dimensions", True),
    "beta": ("KL weight", "beta", True),
    "images_per_s": ("speed", "examples/s", True),
}
MOST_CLASSES = 10


def curves(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, object]]:
    """Returns a chart for each number that any run has logged: training as lines, held-out data as dots."""
    found = []
    for name, (title, unit, zero) in CURVES.items():
        series = []
        for number, (label, lines) in enumerate(runs.items()):
            for split, (x, y) in points(lines, name).items():
                text = f"{label}, {split}" if len(runs) > 1 else split
                series.append(Series(text, x, y, number if len(runs) > 1 or split == "train" else 1, split != "train"))
        if series:
            last = "; ".join(f"{s.label} {charts.brief(s.y[-1])}" for s in series)
            chart = charts.lines(series, "step", unit, f"{title} against the step; last values: {last}", zero=zero)
            found.append({"title": title, "chart": chart, "last": last})
    return found


def points(lines: Sequence[Mapping[str, Any]], name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns split -> (steps, values) of one number of metrics.jsonl, where it is finite."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        value = line.get(name)
        if isinstance(value, int | float) and math.isfinite(value):
            found.setdefault(line.get("split", "train"), []).append((line["step"], value))
    return {split: (np.array(p, float)[:, 0], np.array(p, float)[:, 1]) for split, p in found.items()}


def rate_distortion(runs: Mapping[str, tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]]) -> Markup | None:
    """Returns the rate-distortion chart of the runs that have both, None if there are none."""
    spots, paths = [], []
    for number, (label, (metrics, lines)) in enumerate(runs.items()):
        rate, distortion = (metrics.get(name) or {} for name in ("rate", "distortion"))
        if rate.get("value") is None or distortion.get("value") is None:
            continue
        spot = Series(label, np.array([rate["value"]]), np.array([distortion["value"]]), number)
        spots.append((spot, rate["stderr"] or 0.0, distortion["stderr"] or 0.0))
        x, y = (points(lines, name).get("train", (np.zeros(0), np.zeros(0))) for name in ("rate", "distortion"))
        if len(x[0]) == len(y[0]):
            paths.append(Series(label, x[1], y[1], number))
    if not spots:
        return None
    words = "; ".join(f"{s.label}: rate {s.x[0]:.2f}, distortion {s.y[0]:.2f} nats" for s, _, _ in spots)
    return charts.rate_distortion(spots, paths, f"Distortion against rate. {words}")


def kl_panel(entry: Entry) -> dict[str, object]:
    """Returns the bars of the KL of each dimension, and their numbers."""
    from vae_jax.evaluation.latents import by_size
    from vae_jax.train.metrics import ACTIVE_VARIANCE

    held = entry.result.get("latents") or {}
    kl, variance = held.get("kl_per_dim"), held.get("variance_of_mean")
    if kl is None:
        return {"name": entry.name, "missing": "the rate of this model is no sum over dimensions, or it has none"}
    values = np.array([math.nan if v is None else v for v in kl], np.float64)
    spread = np.array([math.nan if v is None else v for v in variance or [None] * len(kl)], np.float64)
    order = by_size(values)
    active = np.nan_to_num(spread) > ACTIVE_VARIANCE
    names = [f"z{d}" for d in order]
    words = f"{int(active.sum())} of {len(kl)} dimensions active, {np.nansum(values):.1f} nats together"
    chart = charts.bars(names, values[order], active[order], "KL, nats", f"KL of each latent dimension: {words}")
    rows = [(f"z{d}", f"{values[d]:.3g}", f"{spread[d]:.3g}", "yes" if active[d] else "no") for d in order]
    return {"name": entry.name, "words": words, "chart": chart, "rows": rows}


def sample_panel(entry: Entry) -> dict[str, object]:
    """Returns the samples."""
    images = entry.look.samples
    if (reason := _no_pictures(entry)) is not None:
        return reason
    if images is None:
        return {"name": entry.name, "missing": entry.look.missing["samples"]}
    rows, columns = images.shape[:2]
    return _grid(entry, tiles(images), f"{rows * columns} samples: {entry.look.sampled}", columns)


def pair_panel(entry: Entry) -> dict[str, object]:
    """Returns held-out images, each above what was made of it."""
    from vae_jax.figures.grid import fold

    if entry.look.columns:
        return _column_panel(entry)
    if (reason := _no_pictures(entry)) is not None:
        return reason
    look = entry.look
    if "pairs" in look.missing:
        return {"name": entry.name, "missing": look.missing["pairs"]}
    columns = min(8, len(look.made))
    halves = fold(look.originals, columns), fold(look.made, columns)
    rows = np.stack(halves, 1).reshape(-1, *halves[0].shape[1:])
    error = float(np.mean(np.square(look.originals - look.made)))
    words = f"{len(look.made)} held-out images, each above its reconstruction; their mean squared error is {error:.4f}"
    return _grid(entry, tiles(rows, group=2), words, columns)


def _column_panel(entry: Entry) -> dict[str, object]:
    """Returns the error of each column of a table, beside that of the best constant."""
    held = entry.look.columns
    number = charts.brief
    rows = [
        (e.name, e.kind, f"{e.n:,}", e.measure, number(e.value), number(e.constant), f"{e.explained:.2f}") for e in held
    ]
    words = (
        f"{len(held)} columns of held-out rows, E[x | E[z|x]] in the units of the table; constant is the standard "
        "deviation, or the share of the most frequent level; explained is 1 where a column is exact, 0 where the best "
        "constant is as good"
    )
    return {"name": entry.name, "words": words, "columns": rows}


def code_panel(entry: Entry) -> dict[str, object]:
    """Returns where codes are in held-out images, and what each of them draws."""
    from vae_jax.evaluation.codebooks import COLUMNS, planes
    from vae_jax.figures.codebooks import constant_rows, index_rows, words

    held, look = entry.look.codebooks, entry.look
    if held is None:
        return {"name": entry.name, "missing": look.missing["codes"]}
    counted = held.counted
    numbers = "; ".join(f"{book.name or 'the codebook'}: {words(used)}" for book, used in counted.pairs)
    pictures = []
    if flat := planes(counted):
        drawn = index_rows(look.originals[:COLUMNS], look.made[:COLUMNS], held.vectors[:COLUMNS], flat)
        below = "held-out images, their reconstructions, and their codes, one color per code: "
        pictures.append((tiles(drawn.images), below + ", ".join(drawn.labels[2:])))
    drawn = constant_rows(held.constants)
    # Of one codebook the last row may be filled up; of several each.
    alone = len(held.constants[0].images) if len(held.constants) == 1 else None
    below = "each code alone in all places, the most used first, framed in its color; rows and their share: "
    pictures.append((tiles(drawn.images, shown=alone), below + "; ".join(drawn.labels)))
    return {"name": entry.name, "words": f"codes of {counted.n:,} held-out images; {numbers}", "pictures": pictures}


def walk_panel(entry: Entry) -> dict[str, object]:
    """Returns one strip of images for each dimension that is moved, largest KL first."""
    walk, walked = entry.look.walk, entry.look.walked
    if (reason := _no_pictures(entry)) is not None:
        return reason
    if walk is None or walked is None:
        return {"name": entry.name, "missing": entry.look.missing["traversals"]}
    if walk.kl is not None:
        notes = [f"KL {k:.2f}" for k in walk.kl]
    else:
        notes = [f"sd {s:.2f}" for s in walk.std]
    unit = {"sd": "standard deviations of the dimension", "%": "quantile of the codes"}.get(walk.unit, "its value")
    size = walk.variables or walk.codes.shape[-1]
    order = "sorted by KL in nats" if walk.kl is not None else "sorted by their spread"
    words = f"{len(walk.dims)} of {size} dimensions, {order}; across: {unit}, the others fixed at those of one image"
    words += f"; {walk.words_for_unused}" if walk.unused else ""
    return {
        "name": entry.name,
        "words": words,
        "columns": walked.shape[1],
        "marks": [f"{m:+.3g}" if abs(m) > 1e-9 else "0" for m in walk.marks],
        "rows": [
            {"dim": f"z{d}", "note": note, "picture": tiles(strip[None])}
            for d, note, strip in zip(walk.dims, notes, walked)
        ],
    }


def map_panel(entry: Entry) -> dict[str, object]:
    """Returns the latent map, once for each label or factor that it can be colored by."""
    plane = entry.look.plane
    if plane is None:
        return {"name": entry.name, "missing": entry.look.missing["map"]}
    shown = [_colored(plane, name, entry.name) for name in plane.colors]
    if not shown:
        series = [Series("", plane.places[:, 0], plane.places[:, 1])]
        shown = [{"by": "", "chart": charts.cloud(series, f"Latent map of {entry.name}"), "legend": [], "ramp": False}]
    words = f"{len(plane.places):,} held-out images; {plane.how}"
    return {"name": entry.name, "words": words, "charts": shown, "finding": not plane.colors}


def _colored(plane: Plane, name: str, run: str) -> dict[str, object]:
    values, names = plane.colors[name]
    seen = np.unique(values)
    label = f"Latent map of {run} colored by {name}"
    if len(seen) <= MOST_CLASSES:
        groups = [(_called(v, names, name), values == v) for v in seen]
    else:
        # Too many to tell apart: ten steps from the lowest to the highest value.
        edges = np.linspace(seen[0], seen[-1], MOST_CLASSES + 1)
        step = np.clip(np.searchsorted(edges, values, "right") - 1, 0, MOST_CLASSES - 1)
        groups = [(f"{edges[i]:.3g} to {edges[i + 1]:.3g}", step == i) for i in range(MOST_CLASSES)]
    ramp = len(seen) > MOST_CLASSES or (name != "label" and len(seen) > 3)
    scale = [round(9 * i / max(1, len(groups) - 1)) for i in range(len(groups))] if ramp else range(len(groups))
    series = [
        Series(text, plane.places[rows, 0], plane.places[rows, 1], color) for color, (text, rows) in zip(scale, groups)
    ]
    chart = charts.cloud(series, label, ramp=ramp, names=not ramp)
    return {"by": name, "chart": chart, "legend": [(s.label, s.color) for s in series], "ramp": ramp}


def _called(value: int, names: Sequence[str], by: str) -> str:
    """Returns what a value of the label or factor `by` is called; a label of -1 is unknown, and no last class."""
    if value < 0:
        return "unknown" if by == "label" else str(value)
    return str(names[value]) if value < len(names) else str(value)


def _no_pictures(entry: Entry) -> dict[str, object] | None:
    """Returns the panel that takes the place of pictures where the data are not images."""
    kind = entry.run.spec.x.kind
    return None if kind == "image" else {"name": entry.name, "missing": f"the data are of kind {kind}, not images"}


def _grid(entry: Entry, picture: Picture, words: str, columns: int) -> dict[str, object]:
    return {"name": entry.name, "words": words, "picture": picture, "columns": columns}
