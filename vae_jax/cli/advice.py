"""Epochs at the command line, in the steps that training counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vae_jax.errors import InputError

if TYPE_CHECKING:
    from vae_jax.runs.config import Config

_EPOCHS = ("epochs", "epoch", "num-epochs", "max-epochs", "n-epochs")


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
