"""The one exception that means "the user gave us something we cannot use"."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable

_MOST_LISTED = 16  # names in one message


class InputError(ValueError):
    """Bad input: the message is one line that names what is wrong, where, and the fix.

    The command line prints it on stderr without a traceback and exits with 2. Raise it before anything
    is written; library code raises it too, so that a caller in Python sees the same sentence.
    """


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
