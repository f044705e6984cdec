"""How a second stage draws: the options of `sample` that its generator alone reads, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax import spaces
from vae_jax.errors import InputError, nearest, option
from vae_jax.options.typed import conform
from vae_jax.runs.run import Run
from vae_jax.tasks import codes

# Options of `sample` that a second stage alone reads.
NAMES = ("guidance", "top_k", "top_p", "passes", "prompt", "prompt_length")


def checked(run: Run, n: int, choices: Mapping[str, Any], prior: str | None) -> dict[str, Any]:
    """Checks how a run is to draw.

    Args:
      run: that samples.
      n: samples.
      choices: as they were given; `prompt_length` goes with `prompt`.
      prior: a fitted density of codes that is drawn from in the model's place, or None.

    Returns:
      the choices as `PriorFns.sample` takes them; {} where there are none.

    Raises:
      InputError: an unknown one, one that this run does not read, or a value out of range.
    """
    for name in choices:
        if name not in NAMES:
            raise InputError(f"{name}: no such option; {nearest(name, NAMES)}")
    given = {name: value for name, value in choices.items() if value is not None}
    taken = () if prior is not None or run.model.prior is None else run.model.prior.takes
    for name in given:
        needed = "prompt" if name == "prompt_length" else name
        if needed not in taken:
            reads = [option(t) for t in taken if t in NAMES]
            also = f", which reads {', '.join(reads)}" if reads else ""
            raise InputError(f"{option(name)}: is not read by the prior of {run.path}{also}; leave it out")
    if "prompt_length" in given and "prompt" not in given:
        raise InputError(f"{option('prompt_length')}: there is no {option('prompt')} to take codes of; leave it out")
    found = {name: _number(run, name, given[name]) for name in given if not name.startswith("prompt")}
    if "prompt" in given:
        found["prompt"] = _prompt(run, n, given["prompt"], given.get("prompt_length"))
    return found


def _number(run: Run, name: str, value: Any) -> Any:
    """Returns a choice that is a number, in its range."""
    whole = name in ("top_k", "passes")
    number = conform(value, int if whole else float, name, 1)
    if whole and number < 1:
        raise InputError(f"{option(name)}: {number} is out of range; it must be 1 or more")
    if name == "top_p" and not 0 < number <= 1:
        raise InputError(f"{option(name)}: {number:g} is out of range; it must be above 0 and at most 1")
    if name == "guidance":
        if not math.isfinite(number) or number < 0:
            raise InputError(f"{option(name)}: {number:g} is out of range; it must be 0 or more")
        if run.model.condition is None:
            raise InputError(
                f"{option(name)}: {run.path} has no condition to be guided by; leave it out, or train a second stage "
                f"with {option('model.condition.on', 'label')}"
            )
        if run.model.condition.is_required and number != 1:
            raise InputError(
                f"{option(name)}: {run.path} was trained with {option('model.condition.drop', 0)}, so that it knows "
                f"no p(z) to be guided away from; leave it out, or train with {option('model.condition.drop', 0.1)}"
            )
    return number


def _prompt(run: Run, n: int, prompt: Any, length: Any) -> np.ndarray:
    """Returns the codes that samples begin with, int32 [n, P]; of fewer than n, one after the other."""
    size = spaces.size(run.model.about.latents)
    if isinstance(prompt, str | Path):
        held = codes.read(run, prompt)[0]
        length = conform(length, int | None, "prompt_length", 1)
        length = size // 2 if length is None else length
        if not 1 <= length < size:
            raise InputError(
                f"{option('prompt_length')}: {length} is out of range; the codes of an example are {size}, so use 1 to "
                f"{size - 1}"
            )
        held = held[:, :length]
    else:
        held = np.atleast_2d(np.asarray(prompt))
        if held.ndim != 2 or held.dtype.kind not in "iu" or not len(held):
            raise InputError(f"{option('prompt')}: is {held.dtype} {held.shape}; give whole numbers [P] or [n, P]")
        if held.shape[1] > size:
            raise InputError(
                f"{option('prompt')}: has {held.shape[1]} codes, but an example has {size}; give fewer, {size - 1} or "
                "less to leave something to draw"
            )
        levels = spaces.leaves(run.model.about.latents)
        sizes = np.array([limit for space in levels if isinstance(space, spaces.Codes) for limit in space.limits])
        wrong = np.argwhere((held < 0) | (held >= sizes[: held.shape[1]]))
        if len(wrong):
            place = wrong[0][1]
            raise InputError(
                f"{option('prompt')}: holds {held[tuple(wrong[0])]} at place {place}, where codes are 0 to "
                f"{sizes[place] - 1}"
            )
    return np.ascontiguousarray(np.resize(held, (n, held.shape[1])), np.int32)
