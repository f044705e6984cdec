"""What a person sees while a run trains: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from vae_jax.errors import release_notes

SHOWN = {"elbo": ".2f", "rate": ".2f", "distortion": ".2f", "mse": ".4f"}
LINE_SECONDS = 10.0


class Progress:
    """Shows step, ELBO, rate, distortion, speed and the time left."""

    def __init__(self, steps: int, *, quiet: bool = False):
        self.steps, self.quiet = steps, quiet
        self.console = Console(quiet=quiet, markup=False, emoji=False)
        self._live = self.console.is_terminal and not quiet
        self._bar: RichProgress | None = None
        self._task: Any = None
        self._start = self._last = time.monotonic()
        self._first_step: int | None = None

    def __enter__(self) -> Progress:
        return self

    def say(self, text: str) -> None:
        """Prints a sentence above the bar, with the notes that waited: training refuses before it speaks."""
        release_notes()
        self.console.print(text, highlight=False, soft_wrap=True)

    def report(self, step: int, metrics: dict[str, Any]) -> None:
        """Shows the newest metrics."""
        if self._first_step is None:
            # The time before the first report went into compilation: no guide to the time left.
            self._first_step, self._start = step, time.monotonic()
        text = "  ".join(
            f"{name} {metrics[name]:{SHOWN[name]}}" for name in SHOWN if isinstance(metrics.get(name), float)
        )
        speed = f"{metrics.get('images_per_s', 0.0):,.0f} {metrics.get('examples', 'images')}/s"
        if self._live:
            self._update_bar(step, text, speed)
        elif time.monotonic() - self._last >= LINE_SECONDS or step == self.steps:
            self._last = time.monotonic()
            done = step - self._first_step
            pace = "compiled" if step < self.steps else ""  # the first report has no speed to tell
            if done:
                left = (self._last - self._start) / done * (self.steps - step)
                pace = f"{speed}  {left:.0f} s left"
            self.say(f"step {step:>7,}/{self.steps:,}  {text}  {pace}".rstrip())

    def _update_bar(self, step: int, text: str, speed: str) -> None:
        if self._bar is None:
            columns: list[ProgressColumn] = [
                MofNCompleteColumn(),
                TextColumn("{task.description}", markup=False),
                TextColumn("{task.fields[speed]}", markup=False),
                TimeRemainingColumn(compact=True),
                TextColumn("left"),
            ]
            if self.console.width >= 100:
                # On narrower terminals the numbers need the room.
                columns.insert(1, BarColumn(bar_width=None))
            self._bar = RichProgress(*columns, console=self.console, expand=self.console.width >= 100)
            self._bar.start()
            self._task = self._bar.add_task("", total=self.steps, speed="", completed=step)
        self._bar.update(self._task, completed=step, description=text.replace("  ", " "), speed=speed)

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
