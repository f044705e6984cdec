"""Files that are either complete or not there.

What is being written has a name of its own beside the target. Nobody can guess that name, and it must not exist: a link
that somebody planted is never followed. `discard` removes whatever is unfinished, for a process that leaves at once.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vae_jax.errors import InputError

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)  # not on Windows
_unfinished: set[Path] = set()


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a path beside `path` (same suffix) that takes its place when the block ends well; else nothing changed.

    A `path` that is a link is replaced itself; what it points to stays as it is.
    """
    temporary = path.with_name(f".{path.stem[:40]}.{secrets.token_hex(8)}{path.suffix}")
    _unfinished.add(temporary)
    try:
        # Made here, so that it is our own file in a folder where others may write too; the umask gives its mode.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _NOFOLLOW, 0o666))
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        _unfinished.discard(temporary)


@contextlib.contextmanager
def temporary_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yields a new folder in `parent`, which is removed at the end with what is left in it."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    _unfinished.add(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unfinished.discard(folder)


def discard() -> None:
    """Removes the unfinished files and folders of this process."""
    for path in list(_unfinished):
        with contextlib.suppress(OSError):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def forget() -> None:
    """Leaves what is unfinished to another process, of which this one is a copy."""
    _unfinished.clear()


def _to_disk(path: Path) -> None:
    # Without it a power cut soon after the rename can leave an empty file in place of the old one. The folder is not
    # synchronized: the worst that follows from that is the old file, whole.
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def no_link(path: str | os.PathLike[str], flags: int) -> int:
    """Opens a file that grows in place, for `open(opener=...)`; never through a link, which may lead anywhere.

    Raises:
      InputError: the path is a link.
    """
    try:
        return os.open(path, flags | _NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise InputError(
            f"{os.fspath(path)}: is a link, and a run writes into its own folder only; remove it"
        ) from None


def write_json(path: Path, values: object) -> None:
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
