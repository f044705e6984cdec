"""SIGTERM and SIGINT as a flag that the loop reads between dispatches."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import TracebackType

from vae_jax.errors import command, either

# How many signals flags took so far, and how many flags still wait for one. The command line reads both, to tell a
# signal that somebody deals with from one that nobody noticed.
noticed, waiting = 0, 0


class Interrupted(Exception):
    """A signal stopped the run after its checkpoint was saved; `exit_code` is 128 + signal (130, 143)."""

    def __init__(self, signum: int, step: int, run: Path | None = None):
        how = either("--resume", "resume=True") if run is None else command("resume", run)
        super().__init__(f"stopped by {signal.Signals(signum).name} at step {step}; continue with {how}")
        self.signum, self.step, self.exit_code = signum, step, 128 + signum


class SignalFlag:
    """Context manager: the first SIGTERM/SIGINT sets `signum`; a second one acts as it would have without us."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._old: dict[int, object] = {}

    def __enter__(self) -> SignalFlag:
        global waiting
        # Python delivers signals to the main thread only; elsewhere (notebook workers) there is nothing to catch.
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGTERM, signal.SIGINT):
                self._old[signum] = signal.signal(signum, self._set)
            waiting += 1
        return self

    def _set(self, signum: int, frame: object) -> None:
        global noticed
        del frame
        noticed += 1
        self.signum = signum
        # Restore the old handlers right away, so that a second signal interrupts whatever takes too long.
        self._restore()

    def _restore(self) -> None:
        global waiting
        # After a signal the handlers are restored already; the second call, on exit, must not count again.
        waiting -= bool(self._old)
        for signum, handler in self._old.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]
        self._old = {}

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()
