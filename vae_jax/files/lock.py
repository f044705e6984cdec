"""One process per run folder: a lock that dies with its process, whatever kills it."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from vae_jax.errors import InputError, option
from vae_jax.files.atomic import no_link

logger = logging.getLogger(__name__)
FILE = ".lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a run folder, or a sweep's, while the block runs; the folder is made if it is missing.

    The operating system gives the lock back when the process ends, so a killed run leaves none behind. The file itself
    stays: another process may have opened it already, and would then lock a file that nobody else can find.

    Raises:
      InputError: another process (or thread) holds it, and nothing in the folder has changed; or the folder cannot be
        written.
    """
    try:
        import fcntl
    except ImportError:  # not a POSIX system: runs are not guarded there
        yield
        return
    # Not in Python's "w" mode, which would empty the file of the process that holds the lock.
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = no_link(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}); choose another {option('workdir')}"
        ) from error
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(file, 0)
            os.write(file, f"{os.getpid()}\n".encode())
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
                holder = os.read(file, 32).decode(errors="replace").strip() or "unknown"
                raise InputError(
                    f"{folder}: process {holder} is training in this folder; wait until it ends, stop it with "
                    f"`kill {holder}`, or choose another {option('workdir')}"
                ) from None
            # Some network file systems have no locks; they cost the guard, not the run.
            logger.warning("%s: cannot be locked (%s)", folder, error.strerror)
        yield
    finally:
        os.close(file)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds a folder to oneself for the block, where the system has such locks."""
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        with contextlib.suppress(OSError):  # a network file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)  # which releases it
