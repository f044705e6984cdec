"""Draws data from a run: from its prior, or from a density that was fitted to its codes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from vae_jax import spaces
from vae_jax.errors import InputError, command, option
from vae_jax.evaluation.codes import Pixels, draw
from vae_jax.options.typed import conform
from vae_jax.runs.run import Run
from vae_jax.spec import users
from vae_jax.tasks import choosing, first_stage, given
from vae_jax.tasks.conditions import requested
from vae_jax.tasks.fit_prior import draw_images
from vae_jax.tasks.pictures import Pictures
from vae_jax.train import TrainState


def sample(
    run: Run | Path | str,
    n: int = 64,
    *,
    label: int | None = None,
    cond: Sequence[float] = (),
    prior: str | None = None,
    temperature: float = 1.0,
    pixels: Pixels | None = None,
    seed: int = 0,
    step: int | Literal["best"] | None = None,
    state: TrainState | None = None,
    **choices: Any,
) -> np.ndarray:
    """Draws n examples from a run: z ~ p(z), then p(x|z).

    Args:
      run: a run, or the path of its folder.
      n: how many.
      label: the class of a model conditioned on labels; None takes every class in turn.
      cond: values of the factors, or the vector, that the model is conditioned on.
      prior: draws z from a density of codes instead: "gmm", "flow" or "two-stage", fitted by `fit_prior`, or the path
        of its .json.
      temperature: factor on the standard deviation of the prior; of a prior over codes, what logits are divided by.
      pixels: what is returned of p(x|z): "mean" is E[x|z], "mode" the most probable x, "sample" a draw; None is
        "mean", and "sample" of a table, whose rows vary as those of the data do.
      seed: of all noise.
      step: of the checkpoint; None for the newest.
      state: looks at this state instead of a checkpoint.
      choices: of a second stage, how its generator draws (`models.stage2.Choices`): `top_k`, `top_p`, `guidance`,
        `passes`, and `prompt`, codes int [P] or [n, P] that samples begin with, or a file that `encode` wrote, whose
        first `prompt_length` codes are taken.

    Returns:
      float32 [n, *x.shape], in the units of the training data: images in [0, 1] are [n, H, W, C]. Rows of a table are
      encoded, as the model has them; `run.table(x)` brings them into its units and words.

    Raises:
      InputError: an argument out of range, a model without a prior, a condition that it does not take.
    """
    options: dict[str, Any] = {
        "label": label,
        "cond": cond,
        "prior": prior,
        "temperature": temperature,
        "pixels": pixels,
    }
    return samples(run, n, **options, seed=seed, step=step, state=state, **choices).images


def samples(
    run: Run | Path | str,
    n: int = 64,
    *,
    label: int | None = None,
    cond: Sequence[float] = (),
    prior: str | None = None,
    temperature: float = 1.0,
    pixels: Pixels | None = None,
    seed: int = 0,
    step: int | Literal["best"] | None = None,
    state: TrainState | None = None,
    **choices: Any,
) -> Pictures:
    """Returns what `sample` does, with the picture that shows it.

    Args:
      run: a run, or the path of its folder.
      n: how many.
      label: class of all samples of a conditional model; None for every class in turn.
      cond: values of all samples of a conditional model; () for what the model samples with by default.
      prior: name of a density of codes that `fit_prior` wrote; None for the model's own prior.
      temperature: scales the standard deviation of the prior.
      pixels: "mean" is E[x|z], "mode" the most probable x, "sample" a draw from p(x|z); None for the usual.
      seed: of the draws.
      step: of the checkpoint; None for the newest.
      state: looks at this state instead of a checkpoint.
      choices: of a second stage, how its generator draws.

    Returns:
      float32 [N, *x.shape], in the units of the training data, and the title of their figure.

    Raises:
      InputError: a model without a prior, a condition that it does not take, or an argument out of range.
    """
    run, n, seed = given.opened(run), given.at_least("n", n), given.seed(seed)
    temperature = conform(temperature, float, "temperature", 1.0)
    pixels, prior = conform(pixels, Pixels | None, "pixels", "mean"), conform(prior, str | None, "prior", "gmm")
    pixels = pixels or ("sample" if run.spec.columns else "mean")
    if not 0 <= temperature < float("inf"):
        raise InputError(f"{option('temperature')}: {temperature} is out of range; it must be zero or more")
    if prior is None and run.model.prior is None:
        fit = f"fit one with {command('fit_prior', run.path)}, or try reconstruct or interpolate"
        if spaces.is_nominal(run.model.about.latents):
            fit = first_stage.advice(run)
        raise InputError(f"{run.path}: its model does not provide a prior to sample from; {fit}")
    chosen = choosing.checked(run, n, choices, prior)
    state, key = given.restored(run, step, state), jax.random.key(seed)
    features = requested(run, state, n, label, cond)
    if prior is None:
        images = draw(run.model, state, key, n, cond=features, temperature=temperature, pixels=pixels, choices=chosen)
    else:
        images = draw_images(run, state, prior, key, n, temperature=temperature, pixels=pixels)
    note = "" if temperature == 1 else f", temperature {temperature:g}"
    note += "" if label is None else f", label {label}"
    note += "".join(f", {name} {value}" for name, value in chosen.items() if name != "prompt")
    shown = {"mean": "E[x|z]", "mode": "mode of p(x|z)", "sample": "x ~ p(x|z)"}[pixels]
    source = "p(z)" if prior is None else f"{Path(prior).stem} fitted to codes"
    title = f"{given.title(run, state)}: samples, {shown}, z ~ {source}{note}"
    return Pictures(users(images, run.spec.units), title, run.spec.units)
