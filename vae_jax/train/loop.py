"""The loop: advance to the next event, run what is due, stop cleanly. It knows no model and no data set."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vae_jax.train.checkpoint import Checkpoints
from vae_jax.train.feed import Feed
from vae_jax.train.metrics import MetricsWriter, not_finite, to_host
from vae_jax.train.signals import Interrupted, SignalFlag
from vae_jax.train.state import TrainState

CHUNK_SECONDS = 0.5  # longest wait between a signal and the loop's notice of it


class NonFinite(RuntimeError):
    """A loss, metric or gradient became NaN or Inf."""

    is_expected = True  # the message says all: commands print no traceback

    def __init__(self, step: int, names: list[str], last_good: int | None):
        self.step, self.names, self.last_good = step, names, last_good
        where = f"the last good checkpoint is step {last_good}" if last_good is not None else "no checkpoint was saved"
        super().__init__(f"{' and '.join(names)} became NaN or Inf at step {step}; {where}")


@dataclass
class Event:
    """Something that happens every `every` steps, at the steps `at`, or every `minutes`, and at the end if `final`."""

    run: Callable[[TrainState, int], None]
    every: int = 0
    at: tuple[int, ...] = ()
    minutes: float = 0.0
    final: bool = True
    _last: float = field(default_factory=lambda: time.monotonic())

    def due(self, step: int, now: float) -> bool:
        """Returns whether it is time; `every` counts steps, `minutes` wall time since the last run."""
        # `now` is monotonic, so that setting the clock of the machine neither skips nor repeats an event.
        by_step = (self.every > 0 and step % self.every == 0) or step in self.at
        by_time = self.minutes > 0 and now - self._last >= 60 * self.minutes
        return by_step or by_time

    def fire(self, state: TrainState, step: int) -> None:
        """Runs it."""
        self.run(state, step)
        self._last = time.monotonic()


def fit(
    feed: Feed,
    state: TrainState,
    *,
    steps: int,
    batch_size: int,
    log_every: int,
    writer: MetricsWriter,
    checkpoints: Checkpoints,
    checkpoint_every: int,
    events: Sequence[Event] = (),
    report: Callable[[int, dict[str, Any]], None] = lambda step, metrics: None,
    done: Callable[[], bool] = lambda: False,
) -> TrainState:
    """Trains to `steps` updates and returns the state.

    Args:
      feed: makes updates.
      state: where to start (fresh, or restored).
      steps: total updates of the run.
      batch_size: examples per update, for images/s.
      log_every: updates between metric lines.
      writer: takes the lines.
      checkpoints: saved every `checkpoint_every` updates, at the end, and on a signal.
      checkpoint_every: updates between checkpoints.
      events: evaluation, figures, ...
      report: progress, called after every chunk with the step and the chunk's metrics.
      done: whether to end early, called after the events of each chunk.

    Returns:
      the state after `steps` updates, or where `done` ended it.

    Raises:
      NonFinite: a loss, metric or gradient is NaN or Inf.
      Interrupted: SIGTERM or SIGINT came; the checkpoint is saved.
      InputError: a checkpoint could not be written; older ones are untouched.
    """
    # `rate` is in steps per second, and 0 until a chunk without compilation has been timed.
    step, rate, window = int(state.step), 0.0, Window()
    last_good = max(checkpoints.steps(), default=None)
    compiled = False
    with SignalFlag() as flag:
        while step < steps and not done():
            # A chunk ends where the next event is due, so that each event sees the state of its own step, and lasts
            # about CHUNK_SECONDS at most, because signals are noticed between chunks only.
            every = [n for n in (log_every, checkpoint_every, *(event.every for event in events)) if n]
            ahead = [at - step for event in events for at in event.at if at > step]
            n = min(steps - step, max(1, int(rate * CHUNK_SECONDS)), *(k - step % k for k in every), *ahead)
            start = time.perf_counter()
            state, metrics, finite = feed.advance(state, n)
            # Waits for the device, so that the time taken below is that of the updates and not of their dispatch.
            if not bool(finite):
                raise NonFinite(int(state.step), not_finite(metrics) or ["loss"], last_good)
            seconds, step = max(time.perf_counter() - start, 1e-9), step + n
            window.add(metrics, n, seconds if compiled else 0.0)
            if compiled:
                # Smoothed: one slow chunk must not decide how long the next one is.
                rate = n / seconds if not rate else 0.7 * rate + 0.3 * n / seconds
            # The first chunk, of one step, holds the compilation: it must not count as speed.
            compiled = True
            line = {**window.mean(), "images_per_s": window.images_per_s(batch_size)}
            report(step, line)
            # The line comes before the checkpoint: a run that resumes at this step does not write it again.
            if step % log_every == 0 or step == steps:
                writer.write(step, "train", line)
                window = Window()
            if step % checkpoint_every == 0 or step == steps:
                last_good = checkpoints.save(state, feed.position())
            # Before the events, which may take longer than the grace period between SIGTERM and SIGKILL.
            if flag.signum is not None:
                checkpoints.save(state, feed.position())
                raise Interrupted(flag.signum, step, checkpoints.run)
            now = time.monotonic()
            for event in events:
                if event.due(step, now) or (step == steps and event.final):
                    event.fire(state, step)
            if step < steps and done():
                # The end is as that of any run: with a line, a checkpoint and what comes last.
                if step % log_every:
                    writer.write(step, "train", line)
                checkpoints.save(state, feed.position())
                for event in (event for event in events if event.final):
                    event.fire(state, step)
        if flag.signum is not None:  # while the last events ran; whoever wants out does not want the evaluation either
            raise Interrupted(flag.signum, step, checkpoints.run)
    return state


class Window:
    """Weighted mean of the metrics since the last line."""

    def __init__(self) -> None:
        self._total: dict[str, Any] = {}
        self._count, self._timed, self._seconds = 0, 0, 0.0

    def add(self, metrics: dict[str, Any], n: int, seconds: float) -> None:
        """Adds the means over n steps; seconds is 0 where they must not count as speed (compilation)."""
        for name, value in metrics.items():
            # Chunks differ in length, hence the weight n. float64, so that a long window loses no digits.
            self._total[name] = self._total.get(name, 0.0) + n * np.asarray(value, np.float64)
        self._count += n
        self._timed += n if seconds else 0
        self._seconds += seconds

    def mean(self) -> dict[str, Any]:
        """Returns the means over all steps added."""
        return to_host({name: value / self._count for name, value in self._total.items()})

    def images_per_s(self, batch_size: int) -> float:
        """Returns the speed over the steps that were timed."""
        return self._timed * batch_size / self._seconds if self._seconds else 0.0
