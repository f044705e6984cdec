"""Trains a config in this process, without a run folder: for studies of many short runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vae_jax import data, spec, train
from vae_jax.data.pipeline import make_batch_fn
from vae_jax.model import Model
from vae_jax.runs.config import Config
from vae_jax.train.feed import DeviceFeed


class Trained(NamedTuple):
    """A trained model: its pure functions, its state, and the seconds that the steps took, compilation included."""

    model: Model
    state: Any
    seconds: float


def train_config(config: Config, watch: Callable[[int, dict[str, Any]], None] | None = None) -> Trained:
    """Trains a config.

    Args:
      config: what to train.
      watch: called with (step, metrics) ten times in training.

    Returns:
      the trained model.
    """
    source = data.load(config.data, "train")
    mesh = train.make_mesh(config.mesh)
    model = config.model.build(spec.images(*source.info.shape))
    example = {"x": jnp.zeros((1, *source.info.shape))}
    shapes = jax.eval_shape(model.init, jax.random.key(0), example)[0]
    tx = train.make_optimizer({group: config.optimizer for group in shapes}, config.steps, model.training.gates)
    state = train.init_state(model, tx, jax.random.key(config.seed), example, mesh=mesh)
    batch_fn = make_batch_fn(source, config.data)
    feed = DeviceFeed(train.make_train_step(model, tx), batch_fn, dict(source.arrays), state, mesh)
    start, part = time.perf_counter(), max(config.steps // 10, 1)
    while int(state.step) < config.steps:
        state, metrics, finite = feed.advance(state, min(part, config.steps - int(state.step)))
        if not bool(finite):
            raise RuntimeError(f"not finite at step {int(state.step)}")
        if watch is not None:
            watch(int(state.step), metrics)
    return Trained(model, state, time.perf_counter() - start)
