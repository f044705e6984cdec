"""Models and steps that are built once: equal configs share them, and so every program that was compiled for them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import optax

from vae_jax import train
from vae_jax.model import Model
from vae_jax.spec import DataSpec
from vae_jax.train.step import TrainStep


def shared(config: Any, spec: DataSpec) -> Model:
    """Returns the model of a config for these data: the same object for equal configs of the package's own parts.

    Programs are kept by the functions of the model that they call. Of a shared model they are found again by the next
    command or call of this process, however often its run is opened. Such a model does not see a part of the package
    that is patched after it was built.

    Args:
      config: of the model (`config.model` of a run).
      spec: the data.

    Raises:
      InputError: the two do not fit.
    """
    # A user's class may call what a notebook defines anew: no model of it is kept.
    own = all(type(part).__module__.startswith("vae_jax.") for part in _parts(config))
    return _built(type(config).build, config, spec) if own else config.build(spec)


def _parts(config: Any) -> Iterator[Any]:
    """Yields a config and all configs inside it."""
    yield config
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(value := getattr(config, field.name)):
            yield from _parts(value)


@functools.lru_cache(maxsize=16)
def _built(build: Callable[[Any, DataSpec], Model], config: Any, spec: DataSpec) -> Model:
    return build(config, spec)


def optimizer(model: Model, groups: Mapping[str, train.Optimizer], steps: int) -> optax.GradientTransformation:
    """Returns the optimizer of `{group: params}`, the same object for the same model and equal options.

    Args:
      model: whose gates it heeds.
      groups: the options of each parameter group.
      steps: length of the run, where schedules end.
    """
    return _optimizer(model, tuple(groups.items()), steps)


@functools.lru_cache(maxsize=16)
def _optimizer(model: Model, groups: tuple, steps: int) -> optax.GradientTransformation:
    return train.make_optimizer(dict(groups), steps, model.training.gates)


@functools.lru_cache(maxsize=16)
def train_step(model: Model, tx: optax.GradientTransformation, ema_decay: float | None, accumulate: int) -> TrainStep:
    """Returns `train.make_train_step` of these, the same function for the same arguments.

    Args:
      model: the model.
      tx: optimizer over `{group: params}`.
      ema_decay: decay of the moving average of params; None keeps none.
      accumulate: number of microbatches.

    Returns:
      `(state, batch) -> (state, metrics)`, pure.
    """
    return train.make_train_step(model, tx, ema_decay=ema_decay, accumulate=accumulate)
