"""Words for command lines that cannot be read: what is missing, metrics without commas."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from vae_jax.errors import quoted

# Command -> field -> a value to show where the field is missing; "" is any command.
_EXAMPLES = {
    "": {"run": "runs/beta_vae", "data": "digits", "name": "mnist", "input": "images.npz", "out": "codes.npz"},
    "decode": {"input": "codes.npz", "out": "images.npz"},
    "impute": {"out": "filled.npz"},
    "score": {"out": "scores.csv"},
    "compress": {"input": "images/", "out": "images.vjc"},
    "decompress": {"input": "images.vjc", "out": "images.npz"},
}


def missing(text: str, target: type, argv: Sequence[str], prog: str) -> str | None:
    """Returns words for required options that were not given, where that is what tyro's message says, else None.

    Args:
      text: the message of tyro, in one line; it has the help of each option in it, but no name of a positional word.
      target: the dataclass of the command.
      argv: the words after the command.
      prog: the command, as in "vae-jax decode".

    Returns:
      the message: which options are required, and values to type for them.
    """
    if not text.startswith(f"Missing from {prog}: "):
        return None
    command = prog.removeprefix("vae-jax ")
    examples = _EXAMPLES[""] | _EXAMPLES.get(command, {})
    given = {word.partition("=")[0].replace("_", "-") for word in argv}
    required = [f for f in dataclasses.fields(target) if f.default is f.default_factory is dataclasses.MISSING]
    options = {
        f"--{f.name.replace('_', '-')}": examples.get(f.name, f.name.upper())
        for f in required
        if "Positional" not in str(f.type)
    }
    typed = " ".join(f"{option} {value}" for option, value in options.items() if option not in given)
    if not text.startswith(f"Missing from {prog}: --"):
        words = [f.name for f in required if "Positional" in str(f.type)]
        # Words before the first option were taken for the first of them.
        count = next((i for i, word in enumerate(argv) if word.startswith("-")), len(argv))
        first = words[min(count, len(words) - 1)]
        what = "data set" if first == "name" else first
        shown = [*argv[:count], *(examples[name] for name in words[count:])] or [examples[first]]
        return f"{command}: which {what}? as in `{' '.join([prog, *map(quoted, shown), typed]).strip()}`"
    absent = [option for option in options if option not in given]
    if len(absent) == 1:
        return f"{absent[0]}: is required; add it, as in {typed}"
    return f"{' and '.join(absent)}: are required; add them, as in {typed}"


def spaced_metrics(argv: Sequence[str]) -> str | None:
    """Returns words for metrics that are separated by blanks, None where `--metrics` has one value.

    Args:
      argv: the words after the command, some of which the parser could not place.
    """
    at = next((i for i, word in enumerate(argv) if word.partition("=")[0] == "--metrics"), None)
    if at is None:
        return None
    values = [argv[at].partition("=")[2]] if "=" in argv[at] else []
    for word in argv[at + 1 :]:
        # A run may follow the metrics: a folder is not one of them.
        if word.startswith("-") or "/" in word or Path(word).exists():
            break
        values.append(word)
    names = [name for value in values for name in re.split(r"[,\s]+", value) if name]
    if len(values) < 2:
        return None
    return f"--metrics: separate metrics by commas; use --metrics {quoted(','.join(names))}"
