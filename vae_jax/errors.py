"""The one exception that means "the user gave us something we cannot use"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input: the message is one line that names what is wrong, where, and the mend.

    The command line prints it on stderr without a traceback and exits with 2. Raise it before anything
    is written; library code raises it too, so that a caller in Python sees the same sentence.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns ", did you mean 'x'?" for the known name closest to `name`, or a list of all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
