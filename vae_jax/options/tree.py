"""Nested dataclasses as dotted options: `model.objective.beta`."""

from __future__ import annotations

import dataclasses
from typing import Any


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Returns {dotted option: value} for every leaf field of a config."""
    found: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value, name = getattr(config, f.name), prefix + f.name
        if dataclasses.is_dataclass(value):
            found |= flatten(value, name + ".")
        else:
            found[name] = value
    return found


def get(config: Any, option: str) -> Any:
    """Returns the value of a dotted option."""
    for part in option.split("."):
        config = getattr(config, part)
    return config


def put(config: Any, option: str, value: Any) -> Any:
    """Returns a copy of the config with one dotted option replaced."""
    head, _, rest = option.partition(".")
    return dataclasses.replace(config, **{head: put(getattr(config, head), rest, value) if rest else value})
