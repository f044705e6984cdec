"""Warnings while a run trains, from the lines that it logs anyway: collapse, codebooks out of use, divergence."""

from __future__ import annotations

import statistics
from collections import deque
from typing import Any

# KL of a latent dimension in nats: below the first nothing is coded, below the second hardly anything.
COLLAPSED, WEAK = 0.01, 0.1
UNUSED = 0.1  # share of the entries of a codebook in use, below which it is not worth its size
WINDOW = 10  # lines that a loss is compared with
LEAST = 3  # of them before anything is said
TIMES = 10.0  # of the usual size of the loss, the mark of divergence
_MOST_LISTED = 16  # dimensions in one message


class Alarms:
    """Reads one line after the other and returns what a person should know.

    Args:
      collapse: what to do about dimensions without information, for the message.
      divergence: what to do about a loss that diverges.
      usage: what to do about a codebook whose entries are not used.
    """

    def __init__(self, collapse: str, divergence: str, usage: str = ""):
        self._collapse, self._divergence, self._usage = collapse, divergence, usage
        self._idle: tuple[list[str], list[str]] = [], []  # codebooks out of use: of the line before, and last said
        self._seen: tuple[list[int], list[int]] = [], []  # of the line before
        self._said: tuple[list[int], list[int]] = [], []
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._diverging = False

    def read(self, step: int, line: dict[str, Any]) -> list[str]:
        """Returns the warnings that a line of training metrics gives rise to."""
        found = [
            self._collapsed(step, line.get("kl_per_dim")),
            self._unused(step, _usage(line)),
            self._diverged(step, line.get("loss")),
        ]
        return [text for text in found if text]

    def _collapsed(self, step: int, kl: Any) -> str | None:
        """Returns a sentence on dimensions with little KL, where they are others than were last listed."""
        if not isinstance(kl, list) or not all(isinstance(nats, float) for nats in kl):
            return None  # a model without a posterior, or of several levels
        low = [i for i, nats in enumerate(kl) if nats < COLLAPSED]
        weak = [i for i, nats in enumerate(kl) if COLLAPSED <= nats < WEAK]
        before, self._seen = self._seen, (low, weak)
        # Two lines in a row: the first steps pass through every KL, and one dimension may waver at a threshold.
        if before != (low, weak) or self._said == (low, weak):
            return None
        self._said = low, weak
        if not low and not weak:
            return f"step {step:,}: all {len(kl)} latent dimensions carry {WEAK:g} nats or more again"
        bounds = ((COLLAPSED, low), (WEAK, weak))
        parts = [f"{_listed(dims)} below {bound:g} nats" for bound, dims in bounds if dims]
        return (
            f"step {step:,}: latent dimensions that are hardly used ({len(low) + len(weak)} of {len(kl)}): "
            f"{', '.join(parts)}; {self._collapse}"
        )

    def _unused(self, step: int, usage: dict[str, float]) -> str | None:
        """Returns a sentence on codebooks of which few entries are used, where they are others than were last named."""
        low = [name for name, share in usage.items() if share < UNUSED]
        (before, said), self._idle = self._idle, (low, self._idle[1])
        # Two lines in a row, as for dimensions: before the encoder has spread out, one entry takes all.
        if before != low or said == low:
            return None
        self._idle = low, low
        if not low:
            return f"step {step:,}: every codebook has {UNUSED:.0%} of its entries in use or more again"
        shares = ", ".join(f"{usage[name]:.1%} of codebook {name}" for name in low[:_MOST_LISTED])
        return f"step {step:,}: entries that are hardly used ({shares} chosen in this interval); {self._usage}"

    def _diverged(self, step: int, loss: Any) -> str | None:
        """Returns a sentence on a loss that has risen by an order of magnitude, once until it falls again."""
        if not isinstance(loss, float):
            return None
        before = list(self._losses)
        if not self._diverging:
            self._losses.append(loss)
        if len(before) < LEAST:
            return None
        # Sizes, since densities may have losses below 0; the median, so that one odd line does not decide.
        usual = statistics.median(map(abs, before))
        risen = loss > max(before) and loss > TIMES * usual
        if not risen or self._diverging:
            self._diverging = risen
            return None
        self._diverging = True
        # The lines before it remain the measure for as long as it lasts.
        self._losses.pop()
        return f"step {step:,}: the loss diverges, {loss:.3g} after {usual:.3g} in the lines before; {self._divergence}"


def _usage(line: dict[str, Any]) -> dict[str, float]:
    """Returns the share of entries in use of each codebook, by its number, after the level where there are several."""
    found = {}
    for name, shares in line.items():
        what, _, level = name.partition("/")
        if what == "usage" and isinstance(shares, list):
            found |= {f"{level} {i}".strip(): share for i, share in enumerate(shares)}
    return found


def _listed(dims: list[int]) -> str:
    shown = ", ".join(map(str, dims[:_MOST_LISTED]))
    return shown if len(dims) <= _MOST_LISTED else f"{shown}, ..."
