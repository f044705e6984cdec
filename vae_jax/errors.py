"""The one exception that means "the user gave us something we cannot use", and the words of its messages.

A message names options and calls as its reader types them: `--batch-size 7` for somebody at the command line,
`batch_size=7` for somebody in Python. Whoever writes a message calls `option` and `command`, which know the reader.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar

_MOST_LISTED = 16  # names in one message
# Set by the entry point of the commands alone: everybody else is in Python.
_on_command_line: ContextVar[bool] = ContextVar("on_command_line", default=False)
# Commands of another name than their call in Python.
_COMMANDS = {"resume": "train --resume", "evaluate_run": "eval", "fit_baseline": "baseline"}


class _Notes:
    """Notes of one call: those that wait, and all that were made."""

    def __init__(self) -> None:
        self.waiting: list[str] = []
        self.said: set[str] = set()
        self.is_open = False  # nothing is refused any more


_notes: ContextVar[_Notes | None] = ContextVar("notes", default=None)
# The notes of the newest call, for a signal: its handler may run in another thread, which sees no context of this one.
_newest = _Notes()


def note(text: str) -> None:
    """Writes a line on stderr: at once, or within `holding_notes` as soon as the call is not refused any more."""
    notes = _notes.get()
    if notes is None or (notes.is_open and text not in notes.said):
        print(text, file=sys.stderr)
    elif text not in notes.said:
        notes.waiting.append(text)
    if notes is not None:
        notes.said.add(text)


def release_notes() -> None:
    """Writes the notes that wait, and lets later ones pass: the call has done what can be refused."""
    notes = _notes.get()
    if notes is not None:
        notes.is_open = True
        for text in notes.waiting:
            print(text, file=sys.stderr)
        notes.waiting.clear()


def waiting_notes() -> list[str]:
    """Returns the notes that wait, for a process that ends without leaving `holding_notes`."""
    return list(_newest.waiting)


@contextlib.contextmanager
def holding_notes() -> Iterator[None]:
    """Makes `note` wait until the block ends or `release_notes`, and say each line once; a refusal drops what waits.

    A refusal is one line: what else there is to know of input that is refused belongs to another call. A block within
    a block is part of it.
    """
    global _newest
    if _notes.get() is not None:
        yield
        return
    _newest = _Notes()
    token = _notes.set(_newest)
    is_refused = False
    try:
        yield
    except InputError:
        is_refused = True
        raise
    finally:
        if not is_refused:
            release_notes()
        _newest = _Notes()
        _notes.reset(token)


class InputError(ValueError):
    """Bad input: the message is one line that names what is wrong, where, and the fix.

    The command line prints it on stderr without a traceback and exits with 2. Raise it before anything
    is written; library code raises it too, so that a caller in Python sees the same sentence.
    """


@contextlib.contextmanager
def on_command_line() -> Iterator[None]:
    """Makes `option` and `command` speak to somebody at the command line until the block ends."""
    token = _on_command_line.set(True)
    try:
        yield
    finally:
        _on_command_line.reset(token)


def option(name: str, *values: object, flag: str | None = None) -> str:
    """Returns an option as the reader types it, with its values if there are any.

    At the command line `--batch-size 7`; in Python `batch_size=7`, and `**{"data.batch_size": 7}` for an option of a
    config, as `vj.experiment` and `vj.resume` take it. Without values only the name: `--batch-size`, `batch_size`.

    Args:
      name: as in Python.
      values: several are a list: `--k 1 10`, `k=(1, 10)`.
      flag: the name at the command line, where it is another one.
    """
    if _on_command_line.get():
        return " ".join([f"--{(flag or name).replace('_', '-')}", *map(quoted, values)])
    if not values:
        return name
    value = _literal(values[0] if len(values) == 1 else values)
    return f'**{{"{name}": {value}}}' if "." in name else f"{name}={value}"


def options(values: Mapping[str, object]) -> str:
    """Returns several options as the reader types them: `--model mlp --steps 7`, `**{"model": "mlp", "steps": 7}`."""
    if _on_command_line.get():
        return " ".join(option(name, value) for name, value in values.items())
    return f"**{{{', '.join(f'{_literal(name)}: {_literal(value)}' for name, value in values.items())}}}"


def choice(name: str, values: Iterable[object]) -> str:
    """Returns an option with the values that it may have: `--split test or train`, `split="test" or "train"`.

    For an option of a config, in Python: `**{"data.protocol": "iwae"} (or "vampprior")`.
    """
    first, *others = values
    if _on_command_line.get():
        return " or ".join([option(name, first), *map(quoted, others)])
    rest = " or ".join(map(_literal, others))
    if not rest:
        return option(name, first)
    return f"{option(name, first)} (or {rest})" if "." in name else f"{option(name, first)} or {rest}"


def command(call: str, *arguments: object, **options: object) -> str:
    """Returns a command or a call as the reader types it, in backticks.

    `command("fit_prior", "runs/a", kind="gmm")` is `vae-jax fit-prior runs/a --kind gmm` or
    `vj.fit_prior("runs/a", kind="gmm")`; `command("resume", "runs/a", **{"optimizer.lr": 1e-4})` works as well.

    Args:
      call: the name in Python.
      arguments: the positional ones.
      options: by name; each is one value.
    """
    if _on_command_line.get():
        words = [_COMMANDS.get(call, call.replace("_", "-")), *map(quoted, arguments)]
        return f"`vae-jax {' '.join([*words, *(option(name, value) for name, value in options.items())])}`"
    given = [*map(_literal, arguments), *(option(name, value) for name, value in options.items())]
    return f"`vj.{call}({', '.join(given)})`"


def either(at_command_line: str, in_python: str) -> str:
    """Returns what the reader understands, where it is more than an option or a call."""
    return at_command_line if _on_command_line.get() else in_python


def _literal(value: object) -> str:
    """Returns a value as Python code; texts in double quotes."""
    if isinstance(value, str | os.PathLike):
        text = repr(os.fspath(value))
        return f'"{text[1:-1]}"' if text[0] == "'" and '"' not in text else text
    return repr(value)


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns "did you mean 'x'?" for the known name closest to `name`, else all names, or of many the nearest five."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    if len(names) <= _MOST_LISTED:
        return f"known: {', '.join(names)}"
    few = difflib.get_close_matches(name, names, n=5, cutoff=0.3)
    return f"the nearest of {len(names)} are {', '.join(few)}" if few else f"known are {', '.join(names[:5])}, ..."


def shown(text: object) -> str:
    """Returns a name from outside (a file, a class folder) as it goes into a line: control characters are escaped.

    A line break would make two lines of one message, and an escape sequence would reach the terminal.
    """
    return "".join(c if c.isprintable() or c == " " else repr(c)[1:-1] for c in str(text))


def quoted(text: object) -> str:
    """Returns a path or name as one word of a command that a message gives, for a shell to read: 'my run'."""
    return shlex.quote(shown(text))
