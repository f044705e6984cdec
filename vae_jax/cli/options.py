"""From the command line to dataclasses: tyro does the work, errors become one line.

A component is swapped by its name (`--model.objective beta --model.network conv64`) and set by its fields
(`--model.objective.beta 6`), in any order.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from vae_jax.errors import InputError, nearest

if TYPE_CHECKING:
    from vae_jax.config import Config

T = TypeVar("T")

# Headings of tyro's message boxes; without a box they stand on a line of their own.
TITLES = ("Value error", "Invalid choice", "Missing argument", "Unrecognized options", "Parsing error")


def parse(cls: type[T], argv: Sequence[str], prog: str, *, default: T | None = None, description: str = "") -> T:
    """Returns an instance of the dataclass `cls` from command-line words.

    Raises:
      InputError: what tyro objects to, in one line.
      SystemExit: `--help` was asked for and printed.
    """
    import tyro

    known = option_names(cls if default is None else default)
    _check_known(argv, known, prog)
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            return tyro.cli(  # type: ignore[return-value]
                cls,
                args=list(argv),
                default=default,
                prog=prog,
                description=description or None,
                config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise InputError(_one_line(stderr.getvalue())) from None


def parse_config(config: Config, argv: Sequence[str], prog: str, *, description: str = "") -> Config:
    """Returns the config with command-line overrides applied and every number checked.

    Raises:
      InputError: unknown option or component (the nearest name is offered), wrong type, value out of range.
      SystemExit: `--help` was asked for and printed.
    """
    from vae_jax import config as configs

    words, chosen = _take_components(list(argv), configs.REGISTRIES)
    for option in sorted(chosen, key=lambda o: o.count(".")):
        if not _has(config, option):
            raise InputError(f"--{option}: this model has no {option.rpartition('.')[2]}; leave the option out")
        config = configs.choose(config, option, chosen[option])
    if any(word in ("-h", "--help") for word in words):
        description = f"{description}\n\n{_component_help(config)}"
    return configs.check(parse(configs.Config, words, prog, default=config, description=description))


def _has(config: Any, option: str) -> bool:
    for part in option.split("."):
        if not hasattr(config, part):
            return False
        config = getattr(config, part)
    return True


def _take_components(argv: list[str], registries: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """Returns (the other words, {component option: name})."""
    rest, chosen = [], {}
    i = 0
    while i < len(argv):
        name, _, value = argv[i].partition("=")
        option = name.removeprefix("--").replace("-", "_")
        if name.startswith("--") and option in registries:
            if not value:
                if i + 1 >= len(argv) or argv[i + 1].startswith("--"):
                    raise InputError(f"{name}: needs a name; one of {', '.join(registries[option])}")
                i, value = i + 1, argv[i + 1]
            chosen[option] = value
        else:
            rest.append(argv[i])
        i += 1
    return rest, chosen


def _component_help(config: Config) -> str:
    from vae_jax import config as configs

    lines = ["Components, chosen by name (their options below are those of the present choice):"]
    for option, registry in configs.REGISTRIES.items():
        if _has(config, option):
            present = configs.kind(option, configs.get(config, option))
            lines.append(f"--{option} {{{','.join(registry)}}} (default: {present})")
    return "\n\n".join(lines)


def option_names(target: Any, prefix: str = "") -> list[str]:
    """Returns every `--option` of a dataclass (or of an instance, whose components count as they are)."""
    names = []
    for f in dataclasses.fields(target):
        value = None if isinstance(target, type) else getattr(target, f.name)
        name = prefix + f.name.rstrip("_").replace("_", "-")  # `from_` is the field of --from
        if dataclasses.is_dataclass(value):
            names += option_names(value, name + ".")
        elif not (isinstance(target, type) and "Positional" in str(f.type)):
            names.append(name)
    return names


def _check_known(argv: Sequence[str], known: list[str], prog: str) -> None:
    for word in argv:
        name = word.partition("=")[0].replace("_", "-")
        if not name.startswith("--") or name in ("--help", "--"):
            continue
        if name.removeprefix("--") not in known:
            elsewhere = _of_another_component(name.removeprefix("--"), known)
            if elsewhere:
                raise InputError(f"{word.partition('=')[0]}: {elsewhere}")
            raise InputError(
                f"{word.partition('=')[0]}: no such option; {_suggest(name[2:], known)} (all: {prog} --help)"
            )


def _of_another_component(name: str, known: list[str]) -> str | None:
    """Returns words for an option that belongs to a component which was not chosen, else None."""
    if not any(k.startswith("model.") for k in known):
        return None
    from vae_jax.config import REGISTRIES

    parent, _, field = name.replace("-", "_").rpartition(".")
    owners = [
        kind for kind, cls in REGISTRIES.get(parent, {}).items() if field in {f.name for f in dataclasses.fields(cls)}
    ]
    if not owners:
        return None
    part = parent.rpartition(".")[2]
    return f"the chosen {part} has no {field}; --{parent} {' or '.join(owners)} has"


def _suggest(name: str, known: list[str]) -> str:
    """Returns the nearest option, comparing the whole path first and then its last part."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    if not close:
        tail = name.rpartition(".")[2]
        tails = {k.rpartition(".")[2]: k for k in reversed(known)}
        close = [tails[t] for t in difflib.get_close_matches(tail, tails, n=1, cutoff=0.6)]
    if not close:
        return nearest(name, known) if len(known) < 12 else "nothing like it is known"
    return f"did you mean '--{close[0]}'?"


def _one_line(text: str) -> str:
    """Returns the first paragraph of tyro's message, without the box (drawn, in ASCII, or of blanks) and its title."""
    paragraphs: list[list[str]] = [[]]
    for line in text.splitlines():
        body = line.strip("│|+ \t")
        if re.match(r"^\s*([╭╰┌└]|\+-)", line) or body in TITLES:
            continue
        if set(body) <= set("─-"):
            paragraphs.append([])
        else:
            paragraphs[-1].append(body)
    first = next((p for p in paragraphs if p), [])
    message = re.sub(r"\s+", " ", " ".join(first)).strip().rstrip(".")
    message = re.sub(r"^Error parsing (--\S+): ", r"\1: ", message)
    message = re.sub(r"invalid literal for int\(\) with base 10: (.*)$", r"\1 is not a whole number", message)
    message = re.sub(r"could not convert string to float: (.*)$", r"\1 is not a number", message)
    message = re.sub(
        r"Could not find valid parse for arguments: \[(.*)\]$", r"\1 cannot be read as this option's type", message
    )
    return message or "the command line cannot be read"
