"""What an experiment must reach: the targets of its config, and the verdict on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

# (value, tolerance, source), and a direction where a better number is no miss.
Target = tuple[float, float, str] | tuple[float, float, str, Literal["at least", "at most"]]


def meets(target: Target, seen: float) -> bool:
    """Returns whether a number reaches a target: within the tolerance, or on the better side of it."""
    value, tolerance, _, *direction = target
    if direction == ["at least"]:
        return seen >= value - tolerance
    if direction == ["at most"]:
        return seen <= value + tolerance
    return abs(seen - value) <= tolerance


def target_text(value: float, tolerance: float, direction: str = "") -> str:
    """Returns a target in words: "70 ± 2", "at least -104"."""
    return f"{direction} {value:g}".strip() + (f" ± {tolerance:g}" if tolerance else "")


def judge(expected: Mapping[str, Target], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `expected` with a verdict on each, and `pass`: True if all hold, None if not all could be judged."""
    verdicts: dict[str, Any] = {}
    for name, target in expected.items():
        value, tolerance, source, *direction = target
        ok = bool(meets(target, metrics[name].value)) if name in metrics else None
        toward = {"direction": direction[0]} if direction else {}
        verdicts[name] = {"value": value, "tolerance": tolerance, **toward, "source": source, "pass": ok}
    judged = [v["pass"] for v in verdicts.values()]
    passed = False if False in judged else (True if judged and None not in judged else None)
    return {"expected": verdicts, "pass": passed}
