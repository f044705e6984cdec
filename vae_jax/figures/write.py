"""The pictures of a run folder, made every few minutes of training and at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from vae_jax.evaluation import latents
from vae_jax.evaluation.codes import Codes, decode_all, draw, encode_all
from vae_jax.evaluation.likelihood import Evaluation, evaluate
from vae_jax.figures.curves import curves, read_metrics
from vae_jax.figures.grid import fold, grid, save
from vae_jax.figures.latents import kl_chart, row_labels, value_labels
from vae_jax.model import Model
from vae_jax.train.state import TrainState

ROWS, STEPS, REACH = 12, 11, 2.5  # of the traversals: dimensions, values, prior standard deviations either way


def write_all(
    run_path: Path,
    model: Model,
    state: TrainState,
    batch: Mapping[str, Any],
    title: str = "",
    *,
    prior: tuple[float, float] | None = (0.0, 1.0),
) -> list[Path]:
    """Writes RUN/figures/*.png: samples, reconstructions, traversals, loss_curves, kl_per_dim, and manifold (D = 2).

    What the model has not is left out: an autoencoder has no samples and no KL. Numbers that are not finite are shown
    as such (magenta pixels, missing bars) and stop nothing.

    Args:
      run_path: the run folder; its metrics.jsonl gives the curves.
      model: its pure functions.
      state: the state to show.
      batch: held-out examples, float32 images [B, H, W, C] and `index`; 64 or more give a fair KL chart.
      title: stands above every picture.
      prior: mean and standard deviation of the prior, the unit of the traversals; None takes each dimension's own
        spread over the batch, as does a model without a posterior.

    Returns:
      the files written.
    """
    folder = run_path / "figures"
    folder.mkdir(exist_ok=True)
    codes = encode_all(model, state, [batch])
    result = evaluate(model, state, [batch], key=jax.random.key(0))
    found: dict[str, Figure] = {
        "reconstructions": reconstructions(model, state, np.asarray(batch["image"]), codes, result, title),
        "traversals": traversals(model, state, codes, result, title, prior),
        "loss_curves": curves({title: read_metrics(run_path)}, title=title),
    }
    if model.sample is not None:
        images = draw(model, state, jax.random.key(0), 64)
        found["samples"] = grid(fold(images, 8), title=f"{title}: samples, E[x|z] with z ~ p(z)".lstrip(": "))
    if result.kl_per_dim is not None and result.mean_variance is not None:
        found["kl_per_dim"] = kl_chart(result.kl_per_dim, result.mean_variance, title=title)
    if codes.mean.shape[-1] == 2 and model.sample is not None:
        found["manifold"] = manifold(model, state, title, prior or (0.0, 1.0))
    return [save(figure, folder / f"{name}.png") for name, figure in found.items()]


def reconstructions(
    model: Model, state: TrainState, images: np.ndarray, codes: Codes, result: Evaluation, title: str, n: int = 32
) -> Figure:
    """Returns rows of originals, each with the row of its reconstructions E[x | E[z|x]] below."""
    n = min(n, len(images))
    columns = min(8, n)
    n -= n % columns
    pairs = [fold(images[:n], columns), fold(decode_all(model, state, codes.mean[:n]), columns)]
    rows = np.stack(pairs, 1).reshape(-1, *pairs[0].shape[1:])
    psnr = result.metrics["psnr"].value
    return grid(
        rows,
        title=f"{title}: reconstructions of held-out images, PSNR {psnr:.1f} dB (mean over {result.n})".lstrip(": "),
        rows=["original", "reconstruction"] * (len(rows) // 2),
        group=2,
    )


def traversals(
    model: Model,
    state: TrainState,
    codes: Codes,
    result: Evaluation,
    title: str,
    prior: tuple[float, float] | None = (0.0, 1.0),
    rows: int = ROWS,
) -> Figure:
    """Returns one row a latent dimension, largest KL first, moved through the prior; the others stay at one image."""
    mean, std = latents.aggregate(codes)
    own = prior is None or codes.log_var is None
    dims = latents.by_size(std if result.kl_per_dim is None else np.asarray(result.kl_per_dim))[:rows]
    moments = [(float(mean[d]), float(std[d])) if own or prior is None else prior for d in dims]
    values = np.stack([latents.span(m, s, REACH, STEPS) for m, s in moments])
    base = codes.mean[latents.centre(codes)]
    images = decode_all(model, state, latents.traverse(base, dims, values))
    shown = np.linspace(-REACH, REACH, STEPS) if own else values[0]
    dropped = f" (first {len(dims)} of {len(mean)})" if len(dims) < len(mean) else ""
    return grid(
        images,
        title=f"{title}: latent traversals{dropped}".lstrip(": "),
        rows=row_labels(dims.tolist(), result.kl_per_dim, std.tolist()),
        columns=value_labels(shown.tolist(), " sd" if own else ""),
        xlabel="value of the latent dimension, all others fixed at those of one image",
    )


def manifold(model: Model, state: TrainState, title: str, prior: tuple[float, float], side: int = 16) -> Figure:
    """Returns E[x|z] on a grid of equal steps of prior probability, for two latent dimensions."""
    plane = latents.plane(side, *prior)
    return grid(
        decode_all(model, state, plane),
        title=f"{title}: decoded latent plane, equal steps of prior probability".lstrip(": "),
        columns=[f"{v:.1f}" for v in plane[0, :, 0]],
        rows=[f"{v:.1f}" for v in plane[:, 0, 1]],
        xlabel="z0",
        ylabel="z1",
    )
