"""From device metrics to lines of `metrics.jsonl` and TensorBoard."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_jax.files.atomic import replacing

logger = logging.getLogger(__name__)

_MOST_LISTED = 8  # line numbers in one message
ACTIVE_VARIANCE = 0.01  # a unit is active if Var_x(E_q[z|x]) exceeds this (arXiv:1509.00519, sec. 5)


def to_host(metrics: dict[str, Any]) -> dict[str, Any]:
    """Returns floats and lists; moments and shares of codes become `active_units`, `usage` and `perplexity`.

    active_units counts dimensions with Var_x(E[z|x]) = E[mu^2] - E[mu]^2 > 0.01, over the examples of the interval; a
    one-hot variable [D, K] is one dimension, with the sum over its entries. `usage` is the share of the entries of each
    codebook that were chosen in the interval, `perplexity` exp(H) of how often each was, both lists of one number per
    codebook; of a model of several levels, `usage/LEVEL` and `perplexity/LEVEL`.
    """
    # float64: the variance below is a difference of two moments that may be nearly equal.
    host = {name: np.asarray(value, np.float64) for name, value in metrics.items()}
    mean, square = host.pop("code_mean", None), host.pop("code_square", None)
    if mean is not None and square is not None:
        variance = square - np.square(mean)
        # [D] or, of one-hot variables, [D, K], to one variance per variable [D].
        variance = variance.reshape(len(variance), -1).sum(-1)
        host["active_units"] = np.asarray(int(np.sum(variance > ACTIVE_VARIANCE)))
    # `code_share`, or `code_share/top` of a level of that name.
    for name in [name for name in host if name.partition("/")[0] == "code_share"]:
        share, level = host.pop(name), name.removeprefix("code_share")
        # Below 0: entries that a codebook does not have, being smaller than another.
        host[f"usage{level}"] = np.sum(share > 0, -1) / np.sum(share >= 0, -1)
        entropy = -np.sum(share * np.log(np.where(share > 0, share, 1.0)), -1)
        host[f"perplexity{level}"] = np.exp(entropy)
    return {name: value.tolist() for name, value in host.items()}


def not_finite(metrics: dict[str, Any]) -> list[str]:
    """Returns the names of metrics that hold a NaN or an Inf."""
    return [name for name, value in metrics.items() if not np.all(np.isfinite(np.asarray(value)))]


class Lines(NamedTuple):
    """What a file of JSON lines holds.

    Attributes:
      lines: the objects that have a step, in order.
      damaged: line numbers, from 1, of what could not be read.
      torn: whether the last of these is the file's last line, cut by a kill while it was written.
    """

    lines: list[dict[str, Any]]
    damaged: list[int]
    torn: bool


def read_lines(path: Path) -> Lines:
    """Returns the lines of a `.jsonl` file, without those that are cut or damaged; none if there is no such file."""
    if not path.is_file():
        return Lines([], [], False)
    lines, damaged = [], []
    # Split as bytes: damage may be anything, and a line that is no UTF-8 must not cost the others.
    texts = path.read_bytes().split(b"\n")
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            # By `type`: True would pass as an int.
            if not isinstance(line, dict) or type(line.get("step")) is not int:
                raise ValueError("not a line of ours")
        except (ValueError, RecursionError):  # JSONDecodeError and UnicodeDecodeError are among them
            damaged.append(number)
        else:
            lines.append(line)
    # A file ends with a newline, so the piece after the last one is empty unless a write was cut short.
    return Lines(lines, damaged, damaged[-1:] == [len(texts)])


def damage(path: Path, found: Lines) -> str | None:
    """Returns a sentence that names the damaged lines of a file, None where all could be read."""
    if not found.damaged:
        return None
    count = len(found.damaged)
    numbers = ", ".join(map(str, found.damaged[:_MOST_LISTED]))
    numbers += f", ... ({count:,} lines)" if count > _MOST_LISTED else ""
    cut = " (the last was cut while it was written)" if found.torn else ""
    return f"{path}: cannot be read and left out: {'line' if count == 1 else 'lines'} {numbers}{cut}"


class MetricsWriter:
    """Appends one JSON object a line to `metrics.jsonl`, and the scalars to TensorBoard.

    Args:
      folder: the run folder.
      resume_step: of the checkpoint that training continues from; later lines are dropped.
      tensorboard: write event files as well.
      say: takes the sentence that names damaged lines, which are dropped too; the log has it in any case.
    """

    def __init__(
        self,
        folder: Path,
        *,
        resume_step: int = 0,
        tensorboard: bool = True,
        say: Callable[[str], None] = lambda text: None,
    ):
        self.path = folder / "metrics.jsonl"
        found = read_lines(self.path)
        if damaged := damage(self.path, found):
            logger.warning(damaged)
            say(damaged)
        # Lines after the checkpoint belong to steps that are about to be made again. Written aside and renamed: a kill
        # now must not cost the lines of the whole run.
        kept = [line for line in found.lines if line["step"] <= resume_step]
        with replacing(self.path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._board = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            # Event files only grow. TensorBoard hides what earlier ones hold from `purge_step` on. The checkpoint's own
            # step stays: its line is not written again.
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resume_step + 1, flush_secs=30)

    def write(self, step: int, split: str, metrics: dict[str, Any]) -> None:
        """Writes one line; numbers that are not finite become null, which JSON can say."""
        line = {"step": step, "split": split, **{k: logged(v) for k, v in metrics.items()}}
        # Opened and closed for each line, so that a killed process loses none that was written.
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self._board is not None:
            for name, value in metrics.items():
                # TensorBoard shows scalars; lists such as `kl_per_dim` are in the JSON alone.
                if isinstance(value, int | float) and math.isfinite(value):
                    self._board.add_scalar(f"{split}/{name}", value, step)

    def has(self, step: int, split: str) -> bool:
        """Says whether there is a line of this step and split."""
        return any(line["step"] == step and line.get("split") == split for line in read_lines(self.path).lines)

    def close(self) -> None:
        """Flushes everything to disk."""
        if self._board is not None:
            self._board.close()


def logged(value: object) -> Any:
    """Returns a value as a line of metrics.jsonl holds it: seven digits, null for NaN and Inf."""
    if isinstance(value, list):
        return [logged(v) for v in value]
    if isinstance(value, float):
        # float32 has no more than seven significant digits to give.
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value


def collapse_warning(kl_per_dim: list[float], active_units: int | None, fix: str) -> str | None:
    """Returns a sentence in plain words if the posterior has collapsed, else None.

    Args:
      kl_per_dim: mean KL of each latent dimension, nats.
      active_units: how many dimensions depend on the image; None for a model that does not give the moments of its
        codes, which is judged by its rate alone.
      fix: what to do about it.
    """
    rate, size = sum(kl_per_dim), len(kl_per_dim)
    if active_units == 0:
        return (
            f"posterior collapse: none of the {size} latent dimensions depends on the example (rate {rate:.3g} nats), "
            f"so every reconstruction is the same; {fix}"
        )
    # ln 2 = 0.69 nats are needed to tell two equally likely images apart.
    if rate < 0.5:
        where = f"{size}" if active_units is None else f"{active_units} of {size}"
        return f"close to posterior collapse: the code carries only {rate:.2g} nats in {where} dimensions; {fix}"
    return None
