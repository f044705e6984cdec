"""What a user means who types an option under another name."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vae_jax.errors import InputError, nearest

if TYPE_CHECKING:
    from vae_jax.runs.config import Config

# Names that other libraries use -> the option here. Where the last part of an option is the name, no entry is needed.
_ELSEWHERE = {
    "learning-rate": "optimizer.lr",
    "bs": "data.batch-size",
    "batch": "data.batch-size",
    "z-dim": "model.latent-dim",
    "zdim": "model.latent-dim",
    "latent": "model.latent-dim",
    "latents": "model.latent-dim",
    "latent-size": "model.latent-dim",
    "kl-weight": "model.objective.beta",
    "kld-weight": "model.objective.beta",
    "max-steps": "steps",
    "num-steps": "steps",
    "iterations": "steps",
    "iters": "steps",
    "num-workers": "data.workers",
    "ema": "ema-decay",
    "dataset": "data",
    "data-dir": "data",
    "data-path": "data",
    "dataroot": "data",
    "out-dir": "workdir",
    "output-dir": "workdir",
    "save-dir": "workdir",
    "log-dir": "workdir",
    "logdir": "workdir",
}
_EPOCHS = ("epochs", "epoch", "num-epochs", "max-epochs", "n-epochs")


def unknown_option(name: str, value: str, known: Sequence[str], target: Any) -> str:
    """Returns words for an option that does not exist: the one that is meant, or where one like it is.

    Args:
      name: as typed, without its dashes.
      value: the word after it, "" for none.
      known: every option that exists, without its dashes.
      target: what the options belong to: the config of a training, or a command.
    """
    training = hasattr(target, "model")
    name = _ELSEWHERE.get(name, name) if training else name
    if training and name in ("data", "workdir"):
        return f"no such option; did you mean '--{name}'?"
    # A short name is the last part of an option, the shortest first: --lr is --optimizer.lr.
    ends = [k for k in known if k == name or k.endswith(f".{name}")]
    if ends:
        first, *others = sorted(ends, key=lambda k: (k.count("."), known.index(k)))
        also = f" (or {', '.join(f'--{k}' for k in others[:3])})" if others else ""
        return f"no such option; did you mean '--{first}'?{also}"
    if training and (elsewhere := _of_another_component(name, value, target)):
        return elsewhere
    return f"no such option; {_like(name, known)}"


def _of_another_component(name: str, value: str, config: Config) -> str | None:
    """Returns words for an option of a component that was not chosen, else None."""
    from vae_jax.runs.config import REGISTRIES

    parent, _, field = name.replace("-", "_").rpartition(".")
    for option, registry in REGISTRIES.items():
        if parent not in ("", option) or (option == "model" and not parent) or not _has(config, option):
            continue
        owners = [kind for kind, cls in registry.items() if field in {f.name for f in dataclasses.fields(cls)}]
        if not owners:
            continue
        # The component of the same name (objective beta of --beta) is what is meant; else the first of the registry.
        kind = field if field in owners else owners[0]
        part = option.rpartition(".")[2]
        set_to = f" --{option}.{field.replace('_', '-')} {value}" if value else ""
        others = [owner for owner in owners if owner != kind]
        also = f" (also in {', '.join(others[:4])}{', ...' if len(others) > 4 else ''})" if others else ""
        return f"the chosen {part} has no {field}; use --{option} {kind}{set_to}{also}"
    return None


def _has(config: Config, option: str) -> bool:
    from vae_jax.runs.config import get

    try:
        return get(config, option) is not None
    except AttributeError:
        return False


def _like(name: str, known: Sequence[str]) -> str:
    """Returns the nearest option, comparing the whole path first and then its last part."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    if not close:
        tails = {k.rpartition(".")[2]: k for k in reversed(known)}
        close = [tails[t] for t in difflib.get_close_matches(name.rpartition(".")[2], tails, n=1, cutoff=0.6)]
    return f"did you mean '--{close[0]}'?" if close else nearest(name, known).replace("mean '", "mean '--")


def take_epochs(words: Sequence[str]) -> tuple[str, str, list[str]] | None:
    """Returns (the option, its value or "", the other words) where epochs are requested, else None."""
    for i, word in enumerate(words):
        option, equals, value = word.partition("=")
        if option.startswith("--") and option[2:].replace("_", "-") in _EPOCHS:
            follows = not equals and i + 1 < len(words) and not words[i + 1].startswith("--")
            return option, words[i + 1] if follows else value, [*words[:i], *words[i + 1 + follows :]]
    return None


def epochs(option: str, value: str, config: Config) -> str:
    """Returns the line that says how many steps the epochs are, for the data and the batch size of this config."""
    from vae_jax import data

    size = config.data.batch_size
    try:
        wanted = float(value)
        images = data.load(config.data, "train").size
        steps = round(wanted * images / size)
    except (InputError, ValueError, OverflowError):
        return f"{option}: training counts steps; set --steps to epochs x training images / {size}"
    if steps < 1:
        return f"{option}: training counts steps, and {value} epochs of {images:,} images are none; use --steps 1"
    return (
        f"{option}: training counts steps; {value} epochs of {images:,} images in batches of {size} are --steps {steps}"
    )
