"""Metrics that are made only when they are asked for: their names, meanings, and where their code is."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import NamedTuple

from vae_jax.errors import InputError
from vae_jax.evaluation.likelihood import Estimate
from vae_jax.evaluation.subject import Subject


class Measure(NamedTuple):
    """One entry of `MEASURES`.

    Attributes:
      home: "module:function" of `Subject -> {metric: Estimate}`; it loads when it is asked for.
      meaning: one line for `vae-jax list metrics`, with the unit.
      reference: where it comes from.
      group: a name that stands for every measure of its kind.
    """

    home: str
    meaning: str
    reference: str
    group: str


# name as it is asked for -> Measure. One measure may give several metrics (`dci` gives three).
MEASURES: dict[str, Measure] = {}


def groups() -> dict[str, tuple[str, ...]]:
    """Returns group -> the names of its measures."""
    found: dict[str, tuple[str, ...]] = {}
    for name, measure in MEASURES.items():
        found[measure.group] = (*found.get(measure.group, ()), name)
    return found


def names() -> tuple[str, ...]:
    """Returns every name that may be asked for: the measures and their groups."""
    return (*MEASURES, *groups())


def expand(asked: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the measures among the names asked for, groups spelt out, each once."""
    by_group = groups()
    return tuple(dict.fromkeys(n for name in asked for n in by_group.get(name, (name,)) if n in MEASURES))


def measure(names: tuple[str, ...], subject: Subject) -> tuple[dict[str, Estimate], dict[str, str]]:
    """Returns the metrics of the measures asked for, and for each that was refused the reason."""
    metrics: dict[str, Estimate] = {}
    refused: dict[str, str] = {}
    for name in names:
        module, _, attribute = MEASURES[name].home.partition(":")
        function: Callable[[Subject], dict[str, Estimate]] = getattr(importlib.import_module(module), attribute)
        try:
            metrics.update(function(subject))
        except InputError as error:
            refused[name] = str(error)
    return metrics, refused
