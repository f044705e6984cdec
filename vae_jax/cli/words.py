"""Words of a command line that a command reads itself, before the rest goes to the parser of options."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vae_jax.errors import InputError

# (option, the words after it, the words before it) -> how many of the words after it are its values.
Accepts = Callable[[str, Sequence[str], Sequence[str]], int]


def take(
    argv: Sequence[str], known: Sequence[str], accepts: Accepts, missing: Callable[[str], str], more: str = ""
) -> tuple[dict[str, list[str]], list[str]]:
    """Returns ({option: its values}, the other words).

    Args:
      argv: the words.
      known: options that are taken out; one that is given no value is taken to be a flag if `missing` says "".
      accepts: how many words an option without `=` takes.
      missing: option -> what to say of one without a value; "" leaves it among the other words.
      more: an option that may be given again, which adds to its values.

    Returns:
      the values of the options that were given, by name, and the words that are left, in their order.

    Raises:
      InputError: an option without a value, or one given twice.
    """
    found: dict[str, list[str]] = {}
    rest: list[str] = []
    i = 0
    while i < len(argv):
        option, equals, text = argv[i].partition("=")
        i += 1
        if option not in known:
            rest.append(argv[i - 1])
            continue
        count = 0 if equals else accepts(option, argv[i:], argv[: i - 1])
        values = [text] if equals else list(argv[i : i + count])
        i += count
        if not any(values):
            words = missing(option if not equals else f"{option}=")
            if words:
                raise InputError(f"{option}: needs {words}")
            rest.append(option)
            continue
        if option in found and option != more:
            raise InputError(f"{option}: was given twice; give it once")
        found[option] = found.get(option, []) + values
    return found, rest


def refuse_stray(argv: Sequence[str], single: Sequence[str], flags: Sequence[str]) -> None:
    """Refuses a word too many behind an option of one value, which is taken out before the rest is parsed.

    What is left would be read as one more value of the option before: `--hidden 8 --seeds 0 1` as `--hidden 8 1`.

    Args:
      argv: the words.
      single: options that take one value.
      flags: options that take none.

    Raises:
      InputError: there is such a word.
    """
    if not argv or (argv[0].startswith("-") and argv[0] not in ("--resume", "--init-from")):
        return  # what is wrong with the order is said elsewhere
    left = False  # whether an option that stays among the words came before
    for place, word in enumerate(argv):
        option, equals, _ = word.partition("=")
        if option not in single and option not in flags:
            left = left or (option.startswith("--") and option not in ("--resume", "--vary"))
            continue
        end = place + (1 if equals or option in flags else 2)
        stray = argv[end] if end < len(argv) else "-"
        if left and not stray.startswith("-"):
            values = ", or use commas: " + f"{option} {','.join([*argv[place + 1 : end], stray])}"
            more = values if option in ("--seeds", "--metrics") else ""
            takes = "takes no value" if option in flags else "takes one value"
            raise InputError(f"{option}: {takes}, so that {stray!r} belongs to no option; leave it out{more}")
