"""`log.txt`: the records of this package while a run trains, those of its own thread."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from pathlib import Path
from typing import Any

from vae_jax.files.atomic import no_link

_guard = threading.Lock()
_owners: list[int] = []  # threads with an open log, one entry per log
_before: tuple[int, bool] = (logging.NOTSET, True)  # level and propagation of the package's logger without any log


class _LogFile(logging.FileHandler):
    """A file that may be on a full disk: what it cannot take must not hide the error that it was to record."""

    def _open(self) -> Any:
        return open(self.baseFilename, self.mode, encoding=self.encoding, opener=no_link)

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


class log_to:
    """Sends this package's log records to a file while the block runs.

    Runs may train in threads of one process: a record goes to the logs of the thread that made it. One of a thread
    without a log, such as a reader's, goes to all, so that none is lost.
    """

    def __init__(self, path: Path):
        self._handler = _LogFile(path, encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def __enter__(self) -> None:
        global _before
        package, owner = logging.getLogger("vae_jax"), threading.get_ident()
        self._handler.addFilter(lambda record: record.thread == owner or record.thread not in _owners)
        with _guard:
            # The first log saves the logger's settings and the last one restores them, in whatever order they end.
            if not _owners:
                _before = package.level, package.propagate
                package.setLevel(logging.INFO)
                # Tracebacks belong in the log file; the terminal gets one line from the command.
                package.propagate = False
            _owners.append(owner)
            package.addHandler(self._handler)
        self._owner = owner

    def __exit__(self, *exc: object) -> None:
        package = logging.getLogger("vae_jax")
        with _guard:
            package.removeHandler(self._handler)
            _owners.remove(self._owner)
            if not _owners:
                package.setLevel(_before[0])
                package.propagate = _before[1]
        self._handler.close()
