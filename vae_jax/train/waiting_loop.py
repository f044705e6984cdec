"""Event loops that finish what they began, for orbax."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator


class _WaitingLoop(asyncio.SelectorEventLoop):
    """A loop that waits for its tasks before it closes, whatever comes of them."""

    def close(self) -> None:
        if not self.is_closed() and (left := asyncio.all_tasks(self)):
            # Their results and errors are dropped: the first error is on its way to the caller already.
            self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        super().close()


class _Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return _WaitingLoop()


@contextlib.contextmanager
def waiting_loops() -> Iterator[None]:
    """Makes loops that are opened while the block runs wait for all of their tasks.

    Orbax reads all arrays at the same time and closes its loop as soon as one read fails. TensorStore then finds the
    loop closed under the others, and its threads print a traceback for each of them.
    """
    # The policy is that of the whole process, so callers must hold a lock while it is exchanged.
    old = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(_Policy())
    try:
        yield
    finally:
        asyncio.set_event_loop_policy(old)
