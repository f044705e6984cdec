"""Words for an option that does not exist: what was probably meant."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

from vae_jax.errors import nearest, option, options
from vae_jax.runs.kinds import REGISTRIES, components

# Names that other libraries use -> the option here. Where the last part of an option is the name, no entry is needed.
_ELSEWHERE = {
    "learning_rate": "optimizer.lr",
    "bs": "data.batch_size",
    "batch": "data.batch_size",
    "z_dim": "model.latent_dim",
    "zdim": "model.latent_dim",
    "latent": "model.latent_dim",
    "latents": "model.latent_dim",
    "latent_size": "model.latent_dim",
    "kl_weight": "model.objective.beta",
    "kld_weight": "model.objective.beta",
    "max_steps": "steps",
    "num_steps": "steps",
    "iterations": "steps",
    "iters": "steps",
    "num_workers": "data.workers",
    "ema": "ema_decay",
    "dataset": "data",
    "data_dir": "data",
    "data_path": "data",
    "dataroot": "data",
    "out_dir": "workdir",
    "output_dir": "workdir",
    "save_dir": "workdir",
    "log_dir": "workdir",
    "logdir": "workdir",
}


def unknown_option(name: str, value: Any, known: Sequence[str], target: Any) -> str:
    """Returns words for an option that does not exist: the one that is meant, or where one like it is.

    Args:
      name: as in Python: `model.latent_dim`.
      value: what was given for it; "" for nothing.
      known: every option that exists, as in Python.
      target: what the options belong to: the config of a training, or a command.

    Returns:
      what follows the option in a message: "no such option; did you mean ...?".
    """
    training = hasattr(target, "model")
    name = _ELSEWHERE.get(name, name) if training else name
    if training and name in ("data", "workdir"):
        return f"no such option; did you mean '{option(name)}'?"
    # A short name is the last part of an option, the shortest first: --lr is --optimizer.lr.
    ends = [k for k in known if k == name or k.endswith(f".{name}")]
    if ends:
        first, *others = sorted(ends, key=lambda k: (k.count("."), known.index(k)))
        also = f" (or {', '.join(map(option, others[:3]))})" if others else ""
        return f"no such option; did you mean '{option(first)}'?{also}"
    if training and (elsewhere := _of_another_component(name, value, target)):
        return elsewhere
    return f"no such option; {_like(name, known)}"


def _of_another_component(name: str, value: Any, config: Any) -> str | None:
    """Returns words for an option of a component that was not chosen, else None."""
    parent, _, field = name.rpartition(".")
    for place in components(config):
        if place not in REGISTRIES or parent not in ("", place) or (place == "model" and not parent):
            continue
        registry = REGISTRIES[place]
        owners = [kind for kind, cls in registry.items() if field in {f.name for f in dataclasses.fields(cls)}]
        if not owners:
            continue
        # The component of the same name (objective beta of --beta) is what is meant; else the first of the registry.
        kind = field if field in owners else owners[0]
        part = place.rpartition(".")[2]
        typed = options({place: kind} | ({f"{place}.{field}": value} if value != "" else {}))
        others = [owner for owner in owners if owner != kind]
        also = f" (also in {', '.join(others[:4])}{', ...' if len(others) > 4 else ''})" if others else ""
        return f"the chosen {part} does not have {field}; use {typed}{also}"
    return None


def _like(name: str, known: Sequence[str]) -> str:
    """Returns the nearest option, comparing the whole path first and then its last part."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    if not close:
        tails = {k.rpartition(".")[2]: k for k in reversed(known)}
        close = [tails[t] for t in difflib.get_close_matches(name.rpartition(".")[2], tails, n=1, cutoff=0.6)]
    if close:
        return f"did you mean '{option(close[0])}'?"
    dashes = "--" if option(name).startswith("--") else ""
    return nearest(name, (option(k).removeprefix("--") for k in known)).replace("mean '", f"mean '{dashes}")
