"""Ctrl-C and SIGTERM: a command ends at once, with one line and exit code 130 or 143.

Python's own way, a KeyboardInterrupt, is not safe here. Raised inside a callback of JAX (its hook for the garbage
collector, say) it is swallowed and the command continues. Raised elsewhere it ends the interpreter while XLA's threads
still compute, which is a segmentation fault. So the process leaves without unwinding: files appear only when they are
complete (`vae_jax.files.atomic`), and checkpoints survive a kill at any moment.

The training loop puts a flag in place of these handlers (`train.signals`), to save a checkpoint first. The second
signal is ours again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time

from vae_jax.errors import waiting_notes
from vae_jax.files.atomic import discard, forget

GRACE_SECONDS = 1.0  # for a handler in Python; the main thread may be inside XLA for minutes


def install() -> None:
    """Handles the signals from here on; for the entry point of a process, not for use inside another program."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(signum) is not signal.SIG_IGN:  # as nohup and background shells want it
            signal.signal(signum, leave)
    waker, reader = socket.socketpair()
    waker.setblocking(False)
    signal.set_wakeup_fd(waker.detach(), warn_on_full_buffer=False)
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=_uninstall)
    threading.Thread(target=_watch, args=(reader,), name="signals", daemon=True).start()


def _uninstall() -> None:
    # A forked data worker shares the socket: the signal that ends it would end us. And our files are not its own.
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    forget()


def done() -> None:
    """Lets a finished command end with its own code: a signal while the interpreter closes would change it."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)


def leave(signum: int, frame: object = None) -> None:
    """Ends the process as the signal asks."""
    del frame
    discard()
    if "multiprocessing" in sys.modules:
        for child in sys.modules["multiprocessing"].active_children():  # data workers, which would outlive us
            child.kill()  # not terminate: just after the fork, a child still loses that signal
    # A progress bar hides the cursor; and the line must not begin in the middle of the bar.
    shown = "\r\x1b[K\x1b[?25h" if os.isatty(2) else ""
    what = "interrupted" if signum == signal.SIGINT else f"stopped by {signal.Signals(signum).name}"
    # What the command held back for its end was not refused: without these lines it would be lost.
    lines = "".join(f"{line}\n" for line in [*waiting_notes(), f"vae-jax: {what}"])
    with contextlib.suppress(OSError):
        os.write(2, f"{shown}{lines}".encode())
    os._exit(128 + signum)


def _watch(reader: socket.socket) -> None:
    """Acts for the main thread where it does not come back to Python, as in a long computation of XLA."""
    seen = 0
    while received := reader.recv(1):
        signum = received[0]
        if signum not in (signal.SIGINT, signal.SIGTERM):
            continue
        seen += 1
        time.sleep(GRACE_SECONDS)
        # Without an import: what is not loaded has no flags.
        flags = sys.modules.get("vae_jax.train.signals")
        noticed, waiting = (flags.noticed, flags.waiting) if flags else (0, 0)
        # The loop's flag may take one signal at its next step, however long that lasts. All others were not noticed.
        if seen - noticed > waiting and signal.getsignal(signum) is not signal.SIG_IGN:
            leave(signum)
