"""How a metric is read: whether more or less of it is better, and its digits."""

from __future__ import annotations

from typing import Literal

# Metrics that begin or end so: less is better. Of those below neither is: they say where a model is, not how good.
LESS = ("distortion", "mse", "frechet", "mmd", "jemmig", "calibration")
LESS_AT_END = ("bits_per_dim", "_gap")
NEITHER = ("rate", "active_units", "mutual_information", "aggregate_kl", "total_correlation", "dimension_kl")


def better(name: str) -> Literal["more", "less"] | None:
    """Returns whether more or less of a metric is better; None where neither is."""
    if name in NEITHER:
        return None
    return "less" if name.startswith(LESS) or name.endswith(LESS_AT_END) else "more"


def digits(name: str, value: float | None) -> str:
    """Returns a metric's value with the digits that mean something."""
    if value is None:
        return "not finite"
    # A count has no decimals; ratios and errors lie below 10, nats mostly above.
    return f"{value:.0f}" if name == "active_units" else f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"
