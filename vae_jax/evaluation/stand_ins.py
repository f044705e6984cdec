"""Images of a model's own in place of data that are not there, where any plausible image serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from vae_jax.errors import InputError
from vae_jax.evaluation.codes import draw
from vae_jax.runs.run import Run

if TYPE_CHECKING:
    from vae_jax.train import TrainState


def stand_ins(run: Run, state: TrainState, n: int, gone: InputError) -> dict[str, Any]:
    """Draws images of a model's own, E[x|z] with z from the prior, in place of a batch of data.

    Args:
      run: whose data cannot be read.
      state: its weights.
      n: examples.
      gone: says that they cannot; raised where the model has nothing in their place.

    Returns:
      `x` float32 [n, *x.shape] and `index` int32 [n].

    Raises:
      InputError: `gone`, of a model without a prior, or with a condition that only data give.
    """
    if run.model.prior is None or run.model.condition is not None:
        raise gone
    return {"x": np.asarray(draw(run.model, state, jax.random.key(0), n)), "index": np.arange(n, dtype=np.int32)}
