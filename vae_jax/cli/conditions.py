"""What a conditional model is told on the command line: a label, or the values of its condition."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from vae_jax.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from vae_jax.runs.run import Run
    from vae_jax.train import TrainState


def asked(run: Run, state: TrainState, n: int, label: int | None, cond: tuple[float, ...]) -> np.ndarray | None:
    """Returns the features [n, F] that `--label` or `--cond` ask for; None where neither is given.

    Raises:
      InputError: the model takes no such thing, or a value is out of range.
    """
    import numpy as np

    if label is None and not cond:
        return None
    if label is not None and cond:
        raise InputError("--cond: --label is given too; use one of them")
    if label is not None:
        from vae_jax.evaluation.codes import label_features

        try:
            return label_features(run.model, state, np.full(n, label))
        except InputError as error:
            raise InputError(f"--label {label}: {run.path}: {error}") from None
    condition = run.model.condition
    if condition is None or condition.on not in ("factors", "cond"):
        raise InputError(f"--cond: {run.path} is not conditioned on factors or a vector; leave it out")
    batch: dict[str, Any]
    if not all(math.isfinite(value) for value in cond):
        raise InputError(f"--cond {' '.join(map(str, cond))}: holds NaN or Inf; give finite numbers")
    if condition.on == "cond":
        if len(cond) != run.spec.cond:
            raise InputError(f"--cond: {len(cond)} numbers, but {run.path} is conditioned on {run.spec.cond}")
        batch = {"cond": np.tile(np.asarray(cond, np.float32), (n, 1))}
    else:
        sizes = run.spec.factors
        if len(cond) != len(sizes):
            raise InputError(f"--cond: {len(cond)} values, but {run.path} is conditioned on {len(sizes)} factors")
        for i, (value, size) in enumerate(zip(cond, sizes)):
            if value != int(value) or not 0 <= value < size:
                raise InputError(f"--cond {value:g}: factor {i} has {size} values; use 0 to {size - 1}")
        batch = {"factors": np.tile(np.asarray(cond, np.int32), (n, 1))}
    return np.asarray(condition.features(state.eval_params, state.model_state, batch))


def stored(run: Run, state: TrainState, held: dict[str, np.ndarray], n: int) -> np.ndarray | None:
    """Returns the features [n, F] that belong to the codes of a file, as `vae-jax encode` writes them (`cond`).

    Raises:
      InputError: the model needs features, and the file holds none, or not of these codes.
    """
    import numpy as np

    if run.model.condition is None or "cond" not in held:
        return None
    cond = held["cond"]
    if cond.ndim != 2 or len(cond) != n or cond.dtype.kind not in "fiu" or not np.isfinite(cond).all():
        raise InputError(f"--input: array cond is {cond.dtype} {cond.shape}; it must be {n} finite rows, one a code")
    width = _width(run, state)
    if cond.shape[1] != width:
        raise InputError(f"--input: array cond has {cond.shape[1]} columns, the model takes {width}; encode again")
    return cond.astype(np.float32)


def _width(run: Run, state: TrainState) -> int:
    assert run.model.condition is not None
    return run.model.condition.features(state.eval_params, state.model_state, run.example_batch()).shape[-1]
