"""From the command line to dataclasses: tyro does the work, errors become one line.

A component is swapped by its name (`--model.objective beta --model.network conv64`) and set by its fields
(`--model.objective.beta 6`), in any order.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vae_jax.cli import advice, epochs, ranged_help
from vae_jax.errors import InputError, nearest
from vae_jax.options import registry
from vae_jax.options.ranges import in_steps

if TYPE_CHECKING:
    from vae_jax.runs.config import Config

T = TypeVar("T")

# Headings of tyro's message boxes; without a box they stand on a line of their own.
TITLES = (
    "Value error",
    "Invalid choice",
    "Missing argument",
    "Required options",
    "Unrecognized options",
    "Parsing error",
)


def parse(cls: type[T], argv: Sequence[str], prog: str, *, default: T | None = None, description: str = "") -> T:
    """Returns an instance of the dataclass `cls` from command-line words.

    Args:
      cls: a frozen dataclass; its fields are the options.
      argv: the words after the command's name.
      prog: the name that `--help` and messages show, such as "vae-jax eval".
      default: the values of options that are not given; None takes those of the fields.
      description: the first paragraph of `--help`.

    Returns:
      an instance of `cls`, or of the class of `default`.

    Raises:
      InputError: what tyro objects to, in one line.
      SystemExit: `--help` was given and printed.
    """
    import tyro

    _check_known(argv, cls if default is None else default, prog)
    argv = _run_first(argv)
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr), ranged_help.registry():
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
        text = _one_line(stderr.getvalue())
        words = advice.missing(text, cls, argv, prog)
        if text.startswith("Unrecognized options"):
            words = advice.spaced_metrics(argv)
        raise InputError(words or text) from None


def parse_config(config: Config, argv: Sequence[str], prog: str, *, description: str = "") -> Config:
    """Returns the config with command-line overrides applied and every number checked.

    Args:
      config: the experiment's own config, which the options change.
      argv: the words after the experiment's name.
      prog: the name that `--help` and messages show, such as "vae-jax train vae".
      description: the first paragraph of `--help`.

    Returns:
      a config whose values are in range; components are not yet checked against each other or the data.

    Raises:
      InputError: unknown option or component (the nearest name is offered), wrong type, value out of range.
      SystemExit: `--help` was given and printed.
    """
    from vae_jax import data
    from vae_jax.runs import config as configs
    from vae_jax.runs.kinds import code_of, refuse_first, with_code

    words, named = _take_data(list(argv))
    if named is not None:  # before the other options of the data, which are set on top of it
        named = registry.internal(named, functools.partial(code_of, config))
        config = configs.put(config, "data", data.choose(config.data, named))
    words, chosen = _take_components(words, configs.REGISTRIES)
    for option in sorted(chosen, key=lambda o: o.count(".")):
        config = configs.choose(config, option, chosen[option])
    if any(word in ("-h", "--help") for word in words):
        description = f"{description}\n\n{_DATA_HELP}\n\n{epochs.HELP}\n\n{_component_help(config)}"
    for name in given(words):
        refuse_first(name)
    # Of these no option is shown or read: they are those of a run.
    first = configs.get(config, configs.FIRST) if _has(config, configs.FIRST) else None

    def parsed(words: Sequence[str], **more: Any) -> Config:
        if first is None:
            return parse(configs.Config, words, prog, default=config, **more)
        without = configs.put(config, configs.FIRST, _AsItIs())
        return configs.put(parse(configs.Config, words, prog, default=without, **more), configs.FIRST, first)

    words, counted = epochs.take(epochs.typed(words), in_steps(config))
    if counted:
        words = epochs.resolve(words, counted, configs.check(parsed(words)))
    return configs.check(with_code(parsed(words, description=description), code_of(config)))


@dataclasses.dataclass(frozen=True)
class _AsItIs:
    """Stands for a first stage, which has no options here; it is never built."""

    def build(self, spec: Any) -> Any:
        raise TypeError("the first stage was not put back")


_DATA_HELP = (
    "--data PATH|NAME: train on your own data (a folder of images, an .npz or .npy file, a table in a .csv or "
    ".parquet, a folder of IDX files, a prepared data set) or on a data set by name."
)


def given(words: Sequence[str]) -> list[str]:
    """Returns the options that a command line names, as they are called in Python."""
    names = [word.partition("=")[0][2:].replace("-", "_") for word in words if word.startswith("--")]
    return ["steps" if name == "epochs" else name for name in names]


def _take_data(argv: list[str]) -> tuple[list[str], str | None]:
    """Returns (the other words, what `--data` names or None); the last one counts, as of every option."""
    rest, given = [], None
    words = iter(argv)
    for word in words:
        if word != "--data" and not word.startswith("--data="):
            rest.append(word)
            continue
        given = word.partition("=")[2] if "=" in word else next(words, "")
        if not given or given.startswith("--"):
            raise InputError("--data: needs a path or the name of a data set, as in --data digits")
    return rest, given


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
            if rest and i + 1 < len(argv) and not argv[i + 1].startswith("-"):
                # Else it would be one more value of the option before.
                raise InputError(f"{name}: takes one value, so that {argv[i + 1]!r} belongs to no option; leave it out")
        else:
            rest.append(argv[i])
        i += 1
    return rest, chosen


def _component_help(config: Config) -> str:
    from vae_jax.runs import config as configs

    lines = ["Components, chosen by name (their options below are those of the present choice):"]
    for option, known in configs.REGISTRIES.items():
        if _has(config, option):
            present = configs.kind(option, configs.get(config, option))
            lines.append(f"--{option} {{{','.join(known)}}} (default: {present})")
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


def _run_first(argv: Sequence[str]) -> list[str]:
    """Returns the words with a run folder that follows `--input` in front, as the list of inputs would take it in."""
    words = list(argv)
    if "--input" not in words or not words[0].startswith("-"):
        return words
    first = words.index("--input") + 1
    inputs = itertools.takewhile(lambda word: not word.startswith("--"), words[first:])
    at = next((first + i for i, word in enumerate(inputs) if (Path(word) / "config.json").is_file()), None)
    return words if at is None else [words[at], *words[:at], *words[at + 1 :]]


def _check_known(argv: Sequence[str], target: Any, prog: str) -> None:
    from vae_jax.runs import hints

    known = option_names(target)
    for i, word in enumerate(argv):
        option, equals, value = word.partition("=")
        name = option.replace("_", "-").removeprefix("--")
        # An empty list would mean the run's own data, without a word.
        if option == "--input" and not value and "".join(argv[i + 1 : i + 2]).startswith("--") | (i + 1 == len(argv)):
            raise InputError("--input: needs a path or the name of a data set, as in --input images.npz")
        if not option.startswith("--") or name in ("help", "") or name in known:
            continue
        if not equals and i + 1 < len(argv) and not argv[i + 1].startswith("--"):
            value = argv[i + 1]
        plain = [k.replace("-", "_") for k in known]
        words = hints.unknown_option(name.replace("-", "_"), value, plain, target)
        raise InputError(f"{option}: {words} (all: {prog} --help)")


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
    # Of an option that may be left unset, or named by a word instead.
    if union := re.match(r"(--\S+): no type matching (\S+) could be instantiated from \['(.*)'\]$", message):
        flag, kinds, given = union.groups()
        names = {"INT": "a whole number", "FLOAT": "a number"}
        allowed = [names.get(kind, kind.strip("{}")) for kind in kinds.split("|") if kind != "{None}"]
        return f"{flag}: {given!r} is not {' or '.join(allowed)}"
    message = re.sub(
        r"Could not find valid parse for arguments: \[(.*)\]$", r"\1 cannot be read as this option's type", message
    )
    if union := re.match(r"(--\S+): no type matching (.*) could be instantiated from \[(.*)\]$", message):
        option, forms, given = union.groups()
        words = " or ".join(form.strip("{}").replace(",", ", ") for form in forms.split("|"))
        return f"{option}: {given.replace(',', '')} cannot be read; give {words}"
    if choice := re.match(r"invalid choice '(.*?)' for argument '(.*?)'\. Expected one of \((.*)\)$", message):
        given, option, known = choice.groups()
        values = re.findall("'(.*?)'", known)
        return f"{option}: {given!r} is not one of its values; {nearest(given, values)}"
    return message or "the command line cannot be read"
