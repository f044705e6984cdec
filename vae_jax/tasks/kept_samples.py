"""Samples that a run keeps while it trains, all of the same codes: what each of them became is seen step by step."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from vae_jax.errors import InputError, option
from vae_jax.model import Model
from vae_jax.runs.config import Config
from vae_jax.runs.run import Run
from vae_jax.tasks import sampling
from vae_jax.train import TrainState

logger = logging.getLogger(__name__)
FOLDER = "samples"


def check(config: Config, model: Model) -> None:
    """Checks that samples can be kept as `logging.samples_at` asks.

    Raises:
      InputError: the model has no prior, or a step comes after the last one.
    """
    steps = config.logging.samples_at
    if steps and model.prior is None:
        raise InputError(
            f"logging.samples_at: this model has no prior to sample from; leave {option('logging.samples_at')} out"
        )
    if steps and max(steps) > config.steps:
        kept = tuple(step for step in steps if step <= config.steps)
        fewer = f"use {option('logging.samples_at', *kept)}" if kept else f"leave {option('logging.samples_at')} out"
        raise InputError(
            f"logging.samples_at: {max(steps)} is after the last step {config.steps}; {fewer}, or use "
            f"{option('steps', max(steps))}"
        )


def write(run: Run, state: TrainState, step: int) -> Path:
    """Writes RUN/samples/step_00000100.png, or .npy of data that are not images, and returns the file."""
    folder = run.path / FOLDER
    folder.mkdir(exist_ok=True)
    drawn = sampling.samples(run, 64, state=state)
    file = folder / f"step_{step:08}.png"
    if run.spec.x.kind != "image":
        file = file.with_suffix(".npy")
        np.save(file, drawn.images)
        return file
    from vae_jax.figures import save

    return save(drawn.figure(), file)


def keep(run: Run, state: TrainState, step: int) -> None:
    """Writes the samples; a picture that cannot be made costs no run, the log says why it is missing."""
    try:
        write(run, state, step)
    except Exception:
        logger.exception("samples at step %d failed", step)
