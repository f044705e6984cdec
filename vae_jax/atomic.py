"""Files that are either complete or not there."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` (same suffix) that takes its place when the block ends well; else nothing changed."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, values: Any) -> None:
    """Writes JSON; numbers that are not finite become null, which JSON can say."""
    text = json.dumps(jsonable(values), indent=2, allow_nan=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text)


def jsonable(values: Any) -> Any:
    """Returns the value with tuples as lists and NaN and Inf as None, all the way down."""
    if isinstance(values, dict):
        return {str(name): jsonable(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [jsonable(value) for value in values]
    if isinstance(values, float) and not math.isfinite(values):
        return None
    return values
