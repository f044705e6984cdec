"""What can be seen of one run: samples, reconstructions, traversals, and where codes lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vae_jax import spaces
from vae_jax.data import limit
from vae_jax.pages.plane import Map, flatten

if TYPE_CHECKING:
    from vae_jax.evaluation.codebooks import Constant, Counted
    from vae_jax.evaluation.codes import Codes
    from vae_jax.evaluation.columns import ColumnError
    from vae_jax.evaluation.latents import Walk
    from vae_jax.runs.run import Run
    from vae_jax.train import TrainState

POINTS = 1_500  # images of the latent map; traversals start from one of them
PAIRS = 16
_BATCH = 500  # images encoded at a time
SAMPLES = 64
VALUES = 4_000_000  # of one grid of images: large images are shown in smaller numbers


class Plane(NamedTuple):
    """A latent map: places [N, 2], how they came about, and what they can be colored by.

    Attributes:
      places: float64 [N, 2].
      how: a sentence.
      colors: name of the label or factor -> (its value int [N], the name of each value or ()).
    """

    places: np.ndarray
    how: str
    colors: dict[str, tuple[np.ndarray, Sequence[str]]]


class Codebooks(NamedTuple):
    """What the codebooks of a model hold, of images alone.

    Attributes:
      counted: how often codes occur in the images of the report.
      constants: what the most used codes of the first codebooks are decoded to, each alone.
      vectors: latents int [N, n] of the held-out images that are shown.
    """

    counted: Counted
    constants: Sequence[Constant]
    vectors: np.ndarray


class Look(NamedTuple):
    """What a report shows of one run. What the model does not provide is None, and `missing` says why.

    Attributes:
      samples: rows of images from the prior [R, S, H, W, C]; one row per class where labels can be given.
      sampled: what the rows are.
      originals: held-out images [N, H, W, C].
      made: their reconstructions.
      walk: the traversal; walked its images [R, S, H, W, C].
      walked: see `walk`.
      plane: the latent map.
      parameters: numbers that were trained.
      missing: section -> why it is empty.
      columns: errors of the columns of a table; () of other data.
      codebooks: of a model of images whose latents are indices.
    """

    samples: np.ndarray | None
    sampled: str
    originals: np.ndarray
    made: np.ndarray
    walk: Walk | None
    walked: np.ndarray | None
    plane: Plane | None
    parameters: int
    missing: dict[str, str]
    columns: tuple[ColumnError, ...] = ()
    codebooks: Codebooks | None = None


@dataclass(frozen=True)
class Entry:
    """One run of a report.

    Attributes:
      name: what it is called on the page.
      run: the run.
      look: what can be seen of it.
      result: its eval.json, or the same made for the report.
      origin: where `result` comes from.
      lines: its metrics.jsonl.
    """

    name: str
    run: Run
    look: Look
    result: Mapping[str, Any]
    origin: str
    lines: Sequence[Mapping[str, Any]]


def look(run: Run, state: TrainState, split: str, kl: Sequence[float] | None, kind: Map = "pca", seed: int = 0) -> Look:
    """Returns what can be seen of a run.

    Args:
      run: the run.
      state: its weights.
      split: where held-out images come from.
      kl: mean KL of each latent variable [D], which orders the traversals; None takes the spread of the codes.
      kind: the latent map.
      seed: of the samples.

    Returns:
      arrays to be drawn, and `missing`, which says why a section is empty.

    Raises:
      InputError: the split is empty or unknown.
    """
    import jax

    from vae_jax.evaluation import latents
    from vae_jax.evaluation.codes import decode_all, encode_all
    from vae_jax.evaluation.stand_ins import stand_ins
    from vae_jax.runs.training_data import DataGone

    model, size = run.model, int(np.prod(run.spec.x.shape))
    missing: dict[str, str] = {}
    try:
        batches = list(run.chunks(split, limit.mixed(run.source(split), POINTS), _BATCH))
    except DataGone as gone:
        # The walks start from images of the model's own; what shows the data themselves is left out.
        batches = [stand_ins(run, state, _BATCH, gone)]
        missing["pairs"] = missing["map"] = f"the data of this run are not there ({gone})"
    codes = encode_all(model, state, batches)
    pairs = max(1, min(PAIRS, len(codes.mean), VALUES // size))
    originals = np.asarray(np.concatenate([np.asarray(b["x"]) for b in batches[:1]])[:pairs], np.float32)
    pairs = len(originals)
    made = decode_all(model, state, codes.mean[:pairs], cond=None if codes.cond is None else codes.cond[:pairs])
    finite = bool(np.isfinite(codes.mean).all())
    plane = walk = walked = None
    if spaces.is_nominal(model.about.latents):
        # Distances between indices mean nothing, and there is no line to move one along.
        words = f"the latents are {spaces.words(model.about.latents)}, which have no order"
        missing["traversals"] = missing["map"] = words
    elif finite:
        if "map" not in missing:
            plane = Plane(*flatten(codes.mean, kind, seed), _colors(run, split, codes.extra))
        rows = max(1, min(12, VALUES // (11 * size)))
        walk = latents.walk(codes, kl, prior=run.prior_unit, blocks=spaces.variables(model.about.latents), rows=rows)
        middle = None if codes.cond is None else codes.cond[latents.center(codes)]
        walked = decode_all(model, state, walk.codes, cond=middle)
    else:
        missing["traversals"] = missing["map"] = "codes are not finite: this run has diverged"
    samples, sampled = None, ""
    if model.prior is None:
        missing["samples"] = "the model does not provide a prior to draw from"
    else:
        samples, sampled = _samples(run, state, codes.cond, max(8, min(SAMPLES, VALUES // size // 8 * 8)), seed)
    count = sum(int(x.size) for x in jax.tree.leaves(state.params))
    columns = ()
    if run.spec.columns and "pairs" not in missing:
        columns = _column_errors(run, state, batches, codes)
    books = _codebooks(run, state, codes, pairs, missing)
    return Look(samples, sampled, originals, made, walk, walked, plane, count, missing, columns, books)


def _codebooks(run: Run, state: TrainState, codes: Codes, pairs: int, missing: dict[str, str]) -> Codebooks | None:
    """Returns what codebooks hold, or None and puts into `missing` why there is nothing.

    Args:
      run: of the report.
      state: that is shown.
      codes: of all examples that are read for it.
      pairs: how many of these are shown, the first ones.
      missing: section -> why it is empty.
    """
    from vae_jax.evaluation import codebooks

    model = run.model
    if not spaces.is_nominal(model.about.latents):
        missing["codes"] = f"the latents are {spaces.words(model.about.latents)}, not indices into a codebook"
    elif "pairs" in missing:
        missing["codes"] = missing["pairs"]
    elif run.spec.x.kind != "image":
        missing["codes"] = f"the data are of kind {run.spec.x.kind}, not images"
    else:
        counted = codebooks.count(model, [codes])
        return Codebooks(counted, codebooks.constant(model, state, counted), codes.mean[:pairs])
    return None


def _column_errors(run: Run, state: TrainState, batches: Sequence[Mapping[str, Any]], codes: Any) -> Any:
    """Returns the errors of the columns of a table, over all rows of these batches."""
    from vae_jax.evaluation.codes import decode_all
    from vae_jax.evaluation.columns import errors

    made = decode_all(run.model, state, codes.mean, cond=codes.cond)
    x = np.concatenate([np.asarray(b["x"]) for b in batches])
    seen = np.concatenate([np.asarray(b["mask"]) for b in batches]) if run.spec.mask else None
    return errors(run.spec.columns, x, made, seen)


def _samples(run: Run, state: TrainState, cond: np.ndarray | None, count: int, seed: int) -> tuple[np.ndarray, str]:
    import jax

    from vae_jax.evaluation.codes import draw, label_features

    model, key = run.model, jax.random.key(seed)
    if model.condition is not None and model.condition.classes:
        classes = range(min(model.condition.classes, 10))
        columns = max(2, min(8, count // len(classes)))
        given = [label_features(model, state, np.full(columns, c)) for c in classes]
        rows = [draw(model, state, key, columns, cond=c) for c in given]
        return np.stack(rows), f"one class per row, {classes[0]} to {classes[-1]}; one code per column"
    # Any other condition is that of the held-out images.
    given = None if cond is None else np.resize(cond, (count, cond.shape[-1]))
    images = draw(model, state, key, count, cond=given)
    return images.reshape(-1, 8, *images.shape[1:]), "E[x|z] with z drawn from the prior"


def _colors(run: Run, split: str, extra: Mapping[str, np.ndarray]) -> dict[str, tuple[np.ndarray, Sequence[str]]]:
    info, label = run.source(split).info, extra.get("label")
    if "factors" not in extra:
        return {} if label is None else {"label": (np.asarray(label), info.label_names)}
    values = np.asarray(extra["factors"])
    names = info.factor_names or tuple(f"factor {i}" for i in range(values.shape[-1]))
    # A factor that is also the label has names for its values.
    words = [info.label_names if label is not None and np.array_equal(v, label) else () for v in values.T]
    return {name: (v, w) for name, v, w in zip(names, values.T, words) if len(np.unique(v)) > 1}
