"""From device metrics to lines of `metrics.jsonl` and TensorBoard."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

ACTIVE_VARIANCE = 0.01  # a unit is active if Var_x(E_q[z|x]) exceeds this (arXiv:1509.00519, sec. 5)


def to_host(metrics: dict[str, Any]) -> dict[str, Any]:
    """Returns floats and lists; `code_mean` and `code_square` become `active_units`, where a model gives both.

    active_units counts dimensions with Var_x(E[z|x]) = E[mu^2] - E[mu]^2 > 0.01, over the examples of the interval; a
    one-hot variable [D, K] is one dimension, with the sum over its entries.
    """
    host = {name: np.asarray(value, np.float64) for name, value in metrics.items()}
    mean, square = host.pop("code_mean", None), host.pop("code_square", None)
    if mean is not None and square is not None:
        variance = square - np.square(mean)
        variance = variance.reshape(len(variance), -1).sum(-1)
        host["active_units"] = np.asarray(int(np.sum(variance > ACTIVE_VARIANCE)))
    return {name: value.tolist() for name, value in host.items()}


def not_finite(metrics: dict[str, Any]) -> list[str]:
    """Returns the names of metrics that hold a NaN or an Inf."""
    return [name for name, value in metrics.items() if not np.all(np.isfinite(np.asarray(value)))]


class MetricsWriter:
    """Appends one JSON object a line to `metrics.jsonl`, and the scalars to TensorBoard."""

    def __init__(self, folder: Path, *, resume_step: int = 0, tensorboard: bool = True):
        self.path = folder / "metrics.jsonl"
        kept = []
        if self.path.exists():
            # Lines after the checkpoint belong to steps that are about to be made again.
            lines = (line for line in self.path.read_text().splitlines() if line.strip())
            kept = [line for line in lines if json.loads(line)["step"] <= resume_step]
        self.path.write_text("".join(line + "\n" for line in kept))
        self._board = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_step or None, flush_secs=30)

    def write(self, step: int, split: str, metrics: dict[str, Any]) -> None:
        """Writes one line; numbers that are not finite become null, which JSON can say."""
        line = {"step": step, "split": split, **{k: _jsonable(v) for k, v in metrics.items()}}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self._board is not None:
            for name, value in metrics.items():
                if isinstance(value, int | float) and math.isfinite(value):
                    self._board.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        """Flushes everything to disk."""
        if self._board is not None:
            self._board.close()


def _jsonable(value: Any) -> Any:
    if isinstance(value, list):
        return [_jsonable(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value


def collapse_warning(kl_per_dim: list[float], active_units: int | None) -> str | None:
    """Returns a sentence in plain words if the posterior has collapsed, else None.

    Args:
      kl_per_dim: mean KL of each latent dimension, nats.
      active_units: how many dimensions depend on the image; None for a model that does not give the moments of its
        codes, which is judged by its rate alone.
    """
    rate, size = sum(kl_per_dim), len(kl_per_dim)
    if active_units == 0:
        return (
            f"posterior collapse: none of the {size} latent dimensions depends on the image (rate {rate:.3g} nats), so "
            "every reconstruction is the same; lower beta, or anneal it (--model.objective.schedule linear)"
        )
    if rate < 0.5:
        where = f"{size}" if active_units is None else f"{active_units} of {size}"
        return (
            f"close to posterior collapse: the code carries only {rate:.2g} nats in {where} "
            "dimensions; lower beta, or anneal it (--model.objective.schedule linear)"
        )
    return None
