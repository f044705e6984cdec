"""The condition that a conditional model receives: a label, or values of its factors or vector, as features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from vae_jax.errors import InputError, option
from vae_jax.evaluation.codes import label_features
from vae_jax.options.typed import conform, items
from vae_jax.runs.run import Run
from vae_jax.train import TrainState


def requested(run: Run, state: TrainState, n: int, label: int | None, cond: Sequence[float]) -> np.ndarray | None:
    """Returns the features [n, F] of a label or of values of the condition; None where neither is given.

    Args:
      run: the model's run.
      state: its weights.
      n: rows; each receives the same condition.
      label: a class, or None.
      cond: one value per factor, or the vector that the model is conditioned on; () for none.

    Returns:
      n equal rows, to go with the codes into `decode`.

    Raises:
      InputError: the model does not take it, or a value is out of range.
    """
    label, cond = conform(label, int | None, "label", 0), items(cond, float, "cond")
    if label is None and not cond:
        return None
    if label is not None and cond:
        raise InputError(f"{option('cond')}: {option('label')} is given too; use one of them")
    if label is not None:
        try:
            return label_features(run.model, state, np.full(n, label))
        except InputError as error:
            raise InputError(f"{option('label', label)}: {run.path}: {error}") from None
    condition = run.model.condition
    if condition is None or condition.on not in ("factors", "cond"):
        raise InputError(f"{option('cond')}: {run.path} is not conditioned on factors or a vector; leave it out")
    if not all(math.isfinite(value) for value in cond):
        raise InputError(f"{option('cond', *cond)}: holds NaN or Inf; give finite numbers")
    row = _vector(run, cond) if condition.on == "cond" else _factors(run, cond)
    batch = {condition.on: jnp.tile(row, (n, 1))}
    return np.asarray(condition.features(state.eval_params, state.model_state, batch))


def _vector(run: Run, cond: Sequence[float]) -> np.ndarray:
    if len(cond) != run.spec.cond:
        raise InputError(f"{option('cond')}: {len(cond)} numbers, but {run.path} is conditioned on {run.spec.cond}")
    return np.asarray(cond, np.float32)


def _factors(run: Run, cond: Sequence[float]) -> np.ndarray:
    sizes = run.spec.factors
    if len(cond) != len(sizes):
        raise InputError(f"{option('cond')}: {len(cond)} values, but {run.path} is conditioned on {len(sizes)} factors")
    for i, (value, size) in enumerate(zip(cond, sizes)):
        if value != int(value) or not 0 <= value < size:
            raise InputError(f"{option('cond')} {value:g}: factor {i} has {size} values; use 0 to {size - 1}")
    return np.asarray(cond, np.int32)


def stored(run: Run, state: TrainState, cond: Any, n: int, what: str) -> np.ndarray | None:
    """Returns the features [n, F] that were encoded with codes, as `encode` gives them; None where there are none.

    Args:
      run: the model's run.
      state: its weights.
      cond: as found beside the codes, or None.
      n: number of codes.
      what: the argument that they came with, for messages.

    Returns:
      features as the decoder takes them.

    Raises:
      InputError: they are not features of these codes.
    """
    if run.model.condition is None or cond is None:
        return None
    cond = np.asarray(cond)
    if cond.ndim != 2 or len(cond) != n or cond.dtype.kind not in "fiu" or not np.isfinite(cond).all():
        raise InputError(f"{what}: array cond is {cond.dtype} {cond.shape}; it must be {n} finite rows, one per code")
    blank = run.example_batch()
    width = run.model.condition.features(state.eval_params, state.model_state, blank).shape[-1]
    if cond.shape[1] != width:
        raise InputError(f"{what}: array cond has {cond.shape[1]} columns, the model takes {width}; encode again")
    return cond.astype(np.float32)
