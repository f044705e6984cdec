"""The pictures of a run folder, made every few minutes of training and at the end."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure

from vae_jax import spaces
from vae_jax.evaluation import codebooks, columns, latents
from vae_jax.evaluation.codes import Codes, decode_all, draw, encode_all, label_features
from vae_jax.evaluation.likelihood import evaluate
from vae_jax.figures.codebooks import constant_grid, index_grid, usage_chart
from vae_jax.figures.columns import columns_chart
from vae_jax.figures.curves import curves, read_metrics
from vae_jax.figures.grid import fold, grid, pairs, save
from vae_jax.figures.latents import kl_chart, traversal_grid
from vae_jax.model import Batch, Model
from vae_jax.train.state import TrainState

logger = logging.getLogger(__name__)


def write_all(
    run_path: Path,
    model: Model,
    state: TrainState,
    batch: Batch,
    title: str = "",
    *,
    prior: tuple[float, float] | None = (0.0, 1.0),
    split: Iterable[Batch] | None = None,
) -> list[Path]:
    """Writes RUN/figures/*.png: samples, reconstructions, traversals, loss_curves, kl_per_dim, and manifold (D = 2).

    A model that takes labels also has class_grid, one of indices code_usage, code_pictures and code_grids. What is
    shown of given images has their own features.

    Of tables loss_curves and columns are written; of other data that are not images only loss_curves, and the log says
    why.

    What the model does not provide is left out: an autoencoder has no samples and no KL, and indices into a codebook
    have no traversals. Numbers that are not finite are shown as such (magenta pixels, missing bars) and stop nothing.

    Args:
      run_path: the run folder; its metrics.jsonl gives the curves.
      model: its pure functions.
      state: the state to show.
      batch: held-out examples, float32 images [B, H, W, C] and `index`; 64 or more give a fair KL chart.
      title: of every figure.
      prior: mean and standard deviation of the prior, the unit of the traversals; None takes each dimension's own
        spread over the batch, as does a model without a posterior.
      split: the examples whose codes are counted, read only of a model of indices; None counts those of `batch`.

    Returns:
      the files written.
    """
    folder = run_path / "figures"
    folder.mkdir(exist_ok=True)
    if model.about.spec.x.kind != "image":
        # The numbers of vectors, sequences and tokens are no colors: only what does not show examples is drawn.
        written = [save(curves({title: read_metrics(run_path)}, title=title), folder / "loss_curves.png")]
        if model.about.spec.columns:
            return [*written, save(_columns(model, state, batch, title), folder / "columns.png")]
        logger.info("figures: only loss_curves, because the data are of kind %s, not images", model.about.spec.x.kind)
        return written
    codes = encode_all(model, state, [batch])
    result = evaluate(model, state, [batch], key=jax.random.key(0))
    head = f"{title}: " if title else ""
    psnr = result.metrics["psnr"].value
    shown = min(32, result.n)
    cond = codes.cond
    made = decode_all(model, state, codes.mean[:shown], cond=None if cond is None else cond[:shown])
    found: dict[str, Figure] = {
        "reconstructions": pairs(
            np.asarray(batch["x"])[:shown],
            made,
            title=f"{head}reconstructions, PSNR {psnr:.1f} dB (mean of {result.n})",
        ),
        "loss_curves": curves({title: read_metrics(run_path)}, title=title),
    }
    if spaces.is_nominal(model.about.latents):
        # A part at a time: the codes of a whole split may be larger than the split.
        parts = [codes] if split is None else (encode_all(model, state, [part]) for part in split)
        counted = codebooks.count(model, parts)
        found |= _codebooks(model, state, counted, np.asarray(batch["x"])[:shown], codes.mean[:shown], made, head)
    found |= _walks(model, state, codes, result.kl_per_dim, head, prior)
    classes = 0 if model.condition is None else model.condition.classes
    if model.prior is not None:
        # Classes are cycled; any other condition is that of the images at hand.
        given = None if cond is None or classes else np.resize(cond, (64, cond.shape[-1]))
        images = draw(model, state, jax.random.key(0), 64, cond=given)
        found["samples"] = grid(fold(images, 8), title=f"{head}samples, E[x|z] with z ~ p(z)")
        if classes:
            found["class_grid"] = class_grid(model, state, f"{head}one class per row, one code per column", classes)
    if result.kl_per_dim is not None and result.mean_variance is not None:
        found["kl_per_dim"] = kl_chart(result.kl_per_dim, result.mean_variance, title=title)
    return [save(figure, folder / f"{name}.png") for name, figure in found.items()]


def _columns(model: Model, state: TrainState, batch: Batch, title: str) -> Figure:
    """Returns the figure of the reconstructed columns of a table."""
    codes = encode_all(model, state, [batch])
    made = decode_all(model, state, codes.mean, cond=codes.cond)
    seen = np.asarray(batch["mask"]) if "mask" in batch else None
    found = columns.errors(model.about.spec.columns, np.asarray(batch["x"]), made, seen)
    return columns_chart(found, title=f"{title}: " if title else "")


def _codebooks(
    model: Model,
    state: TrainState,
    counted: codebooks.Counted,
    images: np.ndarray,
    vectors: np.ndarray,
    made: np.ndarray,
    head: str,
) -> dict[str, Figure]:
    """Returns the figures of codebooks: how codes are used, what each draws, and which are where in images."""
    used = {book.name: used for book, used in counted.pairs}
    found = {
        "code_usage": usage_chart(used, counted.n, title=head, examples=model.about.spec.x.examples),
        "code_pictures": constant_grid(codebooks.constant(model, state, counted), title=head, books=len(counted.books)),
    }
    if planes := codebooks.planes(counted):
        some = slice(codebooks.COLUMNS)
        found["code_grids"] = index_grid(images[some], made[some], vectors[some], planes, title=head)
    return found


def _walks(
    model: Model,
    state: TrainState,
    codes: Codes,
    kl: Sequence[float] | None,
    head: str,
    prior: tuple[float, float] | None,
) -> dict[str, Figure]:
    """Returns the figures that move codes: traversals, and the manifold of two dimensions; none of indices."""
    if spaces.is_nominal(model.about.latents):
        words = spaces.words(model.about.latents)
        logger.info("figures: no traversals and no manifold, because the latents are %s, which have no order", words)
        return {}
    walk = latents.walk(codes, kl, prior=prior, blocks=spaces.variables(model.about.latents))
    middle = None if codes.cond is None else codes.cond[latents.center(codes)]
    made = decode_all(model, state, walk.codes, cond=middle)
    found = {"traversals": traversal_grid(made, walk, title=f"{head}latent traversals")}
    if codes.mean.shape[-1] == 2 and model.prior is not None:
        found["manifold"] = manifold(model, state, f"{head}decoded latent plane", prior or (0.0, 1.0), cond=middle)
    return found


def class_grid(model: Model, state: TrainState, title: str, classes: int, columns: int = 10, most: int = 20) -> Figure:
    """Returns samples of each class (of the first 20), from the same noise in every row.

    Args:
      model: conditioned on a label.
      state: a trained state.
      title: of the figure.
      classes: number of labels.
      columns: samples of each class.
      most: rows at most; further classes are left out.

    Returns:
      a matplotlib figure, not yet written.
    """
    shown = range(min(classes, most))
    rows = [
        draw(model, state, jax.random.key(0), columns, cond=label_features(model, state, np.full(columns, c)))
        for c in shown
    ]
    return grid(np.stack(rows), title=title, rows=[str(c) for c in shown], ylabel="class")


def manifold(
    model: Model,
    state: TrainState,
    title: str,
    prior: tuple[float, float],
    side: int = 16,
    *,
    cond: np.ndarray | None = None,
) -> Figure:
    """Returns E[x|z] on a grid of equal steps of prior probability, for two latent dimensions and features `cond`.

    Args:
      model: of two latent dimensions.
      state: a trained state.
      title: of the figure; how the grid is spaced is added.
      prior: mean and standard deviation of the prior.
      side: images on each side of the grid.
      cond: features [side, side, F] of a conditional model, or what broadcasts to them; None without a condition.

    Returns:
      a matplotlib figure, not yet written.
    """
    plane = latents.plane(side, *prior)
    return grid(
        decode_all(model, state, plane, cond=cond),
        title=f"{title}, equal steps of prior probability",
        columns=[f"{v:.1f}" for v in plane[0, :, 0]],
        rows=[f"{v:.1f}" for v in plane[:, 0, 1]],
        xlabel="z0",
        ylabel="z1",
    )
