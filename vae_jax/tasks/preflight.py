"""What can be refused before the first step: whatever the end of a run requires, and cannot get.

A run that trains for hours and is then refused its evaluation has lost them. `training.prepare` and sweeps come here
with the training split in hand, before any folder is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vae_jax import data
from vae_jax.data import DataConfig, Source
from vae_jax.data.source import SPLITS
from vae_jax.errors import InputError, choice, either, option
from vae_jax.evaluation import measures, needs
from vae_jax.evaluation.needs import has_bound
from vae_jax.model import Model
from vae_jax.tasks import held_out, kept_samples

if TYPE_CHECKING:
    from vae_jax.runs.config import Config

Load = Callable[[DataConfig, str], Source]


def check(config: Config, source: Source, model: Model, load: Load = data.load) -> list[Source]:
    """Checks that a run can be evaluated as its config says, and returns the held-out splits that this reads.

    Args:
      config: of the run.
      source: its training split.
      model: built for these data.
      load: reads another split, `data.load` or one that remembers.

    Returns:
      the splits in the order in which they are read, each once.

    Raises:
      InputError: a split that the data do not have or that cannot be read, or bounds that the model does not have.
    """
    e = config.evaluation
    if e.k and not has_bound(model):
        none = either("--evaluation.k without numbers", '**{"evaluation.k": ()}')
        raise InputError(
            f"evaluation.k: {' '.join(map(str, e.k))} samples of a bound on log p(x), but this model does not "
            f"have one (a point code, or a loss that is not a likelihood); write {none}"
        )
    if e.split not in source.info.sizes:
        raise _no_split(config, source, load)
    held_out.check(config, source, model, load)
    kept_samples.check(config, model)
    curve = held_out.curve_split(source.info) if config.logging.eval_every else None
    return [load(config.data, split) for split in dict.fromkeys([e.split, curve]) if split not in (source.split, None)]


def _no_split(config: Config, source: Source, load: Load) -> InputError:
    """Returns the error for an `evaluation.split` that the data do not have, with every way out that can be typed."""
    split, info = config.evaluation.split, source.info
    there = [name for name in reversed(SPLITS) if name in info.sizes]  # held-out ones first
    fix = f"use {choice('evaluation.split', there)}"
    if split == "validation" and (validated := held_out.validated(config.data, source, load)):
        fix += f", or {choice('data.protocol', validated)}"
    return InputError(
        f"evaluation.split: {config.data.shown!r} has no {split} split under protocol {info.protocol!r}; {fix}"
    )


def check_metrics(metrics: Sequence[str], members: Sequence[tuple[Source, Model]]) -> None:
    """Checks that every metric of a sweep can be made for one member at least.

    Args:
      metrics: as requested; () for the standard ones.
      members: (training split, model) of each.

    Raises:
      InputError: one that no member will have; the message says why.
    """
    for name in (*(n for n in metrics if n not in measures.names()), *measures.expand(tuple(metrics))):
        reasons = [_lacking(name, source, model) for source, model in members]
        if reasons and all(reasons):
            raise InputError(f"{option('metrics')}: {reasons[0]}")


def _lacking(name: str, source: Source, model: Model) -> str:
    """Returns why a metric cannot be made of these data and this model, "" if nothing is known against it."""
    if name in measures.MEASURES and (reason := measures.lacking(name, model, source.info)):
        return reason
    if re.fullmatch(r"iwae|iw_\d+", name) and (reason := needs.lacking(name, ("bound",), model)):
        return reason
    if name == "udr":
        others = either("`vae-jax eval RUN --others RUN ...`", "`vj.evaluate_run(run, others=[...])`")
        return f"udr: compares several runs, which {others} names; leave it out"
    if name == "anomaly":
        outliers = either("`vae-jax eval RUN --outliers DATA`", 'settings={"outliers": DATA} of `vj.evaluate_run`')
        return f"anomaly: needs another data set, which {outliers} names; leave it out"
    return ""
