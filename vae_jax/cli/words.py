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
