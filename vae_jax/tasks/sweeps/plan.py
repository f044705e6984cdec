"""What a sweep is made of: its members, and which of them are one program."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vae_jax.errors import InputError
from vae_jax.model import Model
from vae_jax.runs import config as configs
from vae_jax.runs.config import Config

# Options that are inputs of a member's program rather than part of it, besides those that `Model.training.hyper` names.
RATES = ("optimizer.lr", "critic_optimizer.lr")
MOST_SEEDS = 10_000  # of one sweep
_SEED_LIMIT = 2**31  # seeds lie below it


@dataclass(frozen=True)
class Member:
    """One run of a sweep.

    Attributes:
      name: of its folder.
      config: its complete configuration.
      values: option -> value, as it was written, of the options that the sweep varies (besides the seed).
    """

    name: str
    config: Config
    values: Mapping[str, str]


def parse_seeds(text: str) -> tuple[int, ...]:
    """Returns the seeds of "0:8" (0 to 7), "0:8:2", "0,3,5" or "4".

    Raises:
      InputError: not of that form, empty, a seed out of range or twice, or more than `MOST_SEEDS` of them.
    """
    words = [word.strip() for word in text.split(",")]
    seeds: list[int] = []
    for word in words:
        parts = word.split(":")
        if not (1 <= len(parts) <= 3) or not all(re.fullmatch(r"\d+", part) for part in parts):
            raise InputError(f"--seeds: {word!r} is neither a seed nor a range; write 0:8 (0 to 7), or 0,3,5")
        # Bounds come first: a list of 10^12 seeds does not fit into memory, and int() refuses thousands of digits.
        numbers = [int(part) if len(part.lstrip("0")) <= 20 else 10**20 for part in parts]
        if numbers[0] >= _SEED_LIMIT or (len(numbers) > 1 and numbers[1] > _SEED_LIMIT):
            raise InputError(
                f"--seeds: {word[:40]} is out of range; seeds lie below {_SEED_LIMIT}, as in 0:8 (0 to 7), or 0,3,5"
            )
        if len(numbers) == 3 and numbers[2] == 0:
            raise InputError(f"--seeds: {word} has a step of 0; write 0:8 (0 to 7), or 0:8:2")
        found = range(*numbers) if len(numbers) > 1 else numbers
        if not found:
            raise InputError(f"--seeds: {word} is empty; the end must lie above the start (0:8 is 0 to 7)")
        if (total := len(seeds) + len(found)) > MOST_SEEDS:
            raise InputError(
                f"--seeds: {total:,} seeds are too many; give at most {MOST_SEEDS:,}, as in 0:{MOST_SEEDS}"
            )
        seeds += found
    twice = next((seed for seed, count in Counter(seeds).items() if count > 1), None)
    if twice is not None:
        raise InputError(f"--seeds: seed {twice} is given twice; give each once")
    return tuple(seeds)


def parse_vary(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Returns option -> values as written, of words like "model.objective.beta=1,4,16".

    Options keep their order. A value of several words ("model.network.hidden=64 64,128") is a list.

    Raises:
      InputError: not of that form, an option or a value twice, the seed.
    """
    found: dict[str, tuple[str, ...]] = {}
    for word in words:
        option, _, text = word.partition("=")
        option = option.removeprefix("--").replace("-", "_")
        values = tuple(value.strip() for value in text.split(","))
        if not option or not all(values):
            raise InputError(f"--vary {word}: write option=value,value, as in model.objective.beta=1,4,16")
        if option == "seed":
            raise InputError(f"--vary {word}: seeds are given by --seeds, as in --seeds 0:8")
        if option in found:
            raise InputError(f"--vary {option}: is given twice; give all of its values in one list")
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise InputError(f"--vary {option}: value {twice} is given twice; give each once")
        found[option] = values
    return found


def make_members(
    seeds: Sequence[int], vary: Mapping[str, Sequence[str]], configure: Callable[[dict[str, str]], Config]
) -> list[Member]:
    """Returns the members: every combination of values, each with every seed, in the order given.

    Args:
      seeds: of the members.
      vary: option -> values.
      configure: `{option: value}` -> the config of that combination (any seed).

    Raises:
      InputError: no seed, a seed out of range, two combinations that are the same config, or what `configure` raises.
    """
    if not seeds:
        raise InputError("--seeds: none given; write 0:8 (0 to 7), or 0,3,5")
    labels = short_names(vary)
    members, seen = [], {}
    for combination in itertools.product(*vary.values()):
        values = dict(zip(vary, combination))
        config = configs.check(configs.put(configure(values), "seed", seeds[0]))
        for other, old in seen.items():
            if old == config:
                same = [(o, a, b) for o, a, b in zip(vary, other, combination) if a != b]
                option, a, b = same[-1]
                raise InputError(f"--vary {option}: {a} and {b} are the same value here; give each once")
        seen[combination] = config
        for seed in seeds:
            name = "_".join(
                [*(f"{labels[option]}={_plain(value)}" for option, value in values.items()), f"seed={seed}"]
            )
            members.append(Member(name, configs.check(configs.put(config, "seed", seed)), values))
    return members


def short_names(vary: Mapping[str, Any]) -> dict[str, str]:
    """Returns a short name for each option: its last part where that is unique, else all of it."""
    tails = [option.rpartition(".")[2] for option in vary]
    return {option: tail if tails.count(tail) == 1 else option for option, tail in zip(vary, tails)}


def _plain(value: str) -> str:
    """Returns a value as part of a file name."""
    return re.sub(r"[^\w.+-]+", "-", value)


def traced_options(config: Config, model: Model) -> list[str]:
    """Returns the options whose values are inputs of the program: `Model.training.hyper`, and learning rates."""
    known = configs.flatten(config)
    named = [f"{parent}.{name}" for name in model.training.hyper for parent in ("model", "model.objective")]
    return [option for option in (*named, *RATES) if option in known]


def program_of(config: Config, model: Model) -> Config:
    """Returns the config with seed and traced options set aside: members that agree in it are one program."""
    config = configs.put(config, "seed", 0)
    for option in traced_options(config, model):
        config = configs.put(config, option, 1.0)
    return config
