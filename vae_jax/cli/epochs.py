"""Training steps given in epochs: `--epochs 20`, or `5epochs` for every option that counts steps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vae_jax.errors import InputError, note

if TYPE_CHECKING:
    from vae_jax.runs.config import Config

HELP = (
    "--epochs N: passes through the training data, in place of --steps. Every option that counts steps takes epochs: "
    "--logging.eval-every 1epoch."
)
_MEANT = ("num-epochs", "max-epochs", "n-epochs", "epoch", "train-epochs")
_UNIT = re.compile(r"(\d+\.?\d*|\.\d+)(?:ep|epochs?)")
_HELD = "1"  # stands for the steps until the data are known


def typed(words: Sequence[str]) -> list[str]:
    """Returns the words with `--epochs N` as `--steps Nepochs`.

    Raises:
      InputError: epochs without a number, beside --steps, twice, or under another name.
    """
    out: list[str] = []
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        name = option.removeprefix("--").replace("_", "-")
        if option.startswith("--") and name in _MEANT:
            raise InputError(f"{option}: no such option; did you mean --epochs?")
        if option != "--epochs":
            out.append(word)
            continue
        value = value if equals else next(rest, "")
        if not re.fullmatch(r"\d+\.?\d*|\.\d+", value):
            raise InputError(f"--epochs: {value or 'nothing'} is not a number of epochs; give one, as in --epochs 20")
        out += ["--steps", f"{value}epochs"]
    steps = sum(word == "--steps" or word.startswith("--steps=") for word in out)
    if steps > 1 and any(word.partition("=")[0] == "--epochs" for word in words):
        raise InputError("--epochs: the length of training was given twice; give --epochs or --steps, once")
    return out


def take(words: Sequence[str], counting: Sequence[str]) -> tuple[list[str], dict[int, float]]:
    """Returns the words with a number in place of epochs, and the epochs by the place of their word.

    Args:
      words: of the command line.
      counting: options that count steps, as they are called in Python. Words of others stay as they are.

    Returns:
      words that can be parsed, and {place: epochs}.
    """
    out, found, option = list(words), {}, ""
    for place, word in enumerate(words):
        if word.startswith("--"):
            option, _, word = word.partition("=")
        unit = _UNIT.fullmatch(word)
        if unit and option[2:].replace("-", "_") in counting:
            found[place] = float(unit[1])
            out[place] = words[place].removesuffix(word) + _HELD
    return out, found


def resolve(words: Sequence[str], found: Mapping[int, float], config: Config) -> list[str]:
    """Returns the words with steps in place of epochs, and says on stderr how many steps these are.

    Args:
      words: as `take` returned them.
      found: epochs by place, likewise.
      config: of these words; its data and batch size decide.

    Returns:
      the words to parse.

    Raises:
      InputError: data that cannot be read, or less than one step.
    """
    from vae_jax import data

    source, size = data.load(config.data, "train"), config.data.batch_size
    # Balanced draws make an epoch longer than the split.
    what = "examples" if source.draws is None else "balanced draws"
    out = list(words)
    for place, epochs in found.items():
        steps, words_of = round(epochs * source.epoch / size), f"{source.epoch:,} {what} in batches of {size}"
        option = next(w for w in reversed(words[: place + 1]) if w.startswith("--")).partition("=")[0]
        if steps < 1:
            raise InputError(f"{option}: {epochs:g} epochs of {words_of} are less than one step; use {option} 1")
        out[place] = words[place].removesuffix(_HELD) + str(steps)
        note(f"note: {option}: {epochs:g} epochs of {words_of} are {steps:,} steps")
    return out
