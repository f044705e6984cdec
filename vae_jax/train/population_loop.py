"""The loop of a population: as `loop.fit`, for members that log apart and may diverge apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.model import Batch
from vae_jax.train.checkpoint import Checkpoints
from vae_jax.train.loop import CHUNK_SECONDS, Window
from vae_jax.train.metrics import MetricsWriter, not_finite
from vae_jax.train.population import Rates, Together
from vae_jax.train.signals import Interrupted, SignalFlag
from vae_jax.train.state import TrainState

# The metrics of the progress line, where the model gives them.
SHOWN = ("elbo", "rate", "distortion", "mse", "loss")


@dataclass
class Population:
    """Members on their way.

    Attributes:
      states: their states [M, ...]; that of a member that diverged is its last good one.
      step: updates made by those that did not.
      diverged: member -> (step, names of what was not finite).
    """

    states: TrainState
    step: int = 0
    diverged: dict[int, tuple[int, list[str]]] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of members, M."""
        return int(self.states.step.shape[0])

    def save(self, checkpoints: Checkpoints) -> None:
        """Saves all members as one checkpoint."""
        stopped = {str(number): list(what) for number, what in self.diverged.items()}
        checkpoints.save(self.states, {"step": self.step, "diverged": stopped}, self.step)

    @classmethod
    def restore(cls, like: TrainState, checkpoints: Checkpoints, say: Callable[[str], None]) -> Population:
        """Returns the newest population that can be read, placed as `like` is; says which were passed over."""
        states, position = checkpoints.restore(like, say=say)
        stopped = {int(number): (step, names) for number, (step, names) in position["diverged"].items()}
        return cls(states, position["step"], stopped)


def fit_population(
    run: Callable[..., Together],
    population: Population,
    rates: Rates,
    arrays: Batch,
    *,
    steps: int,
    batch_size: int,
    log_every: int,
    writers: Sequence[MetricsWriter],
    checkpoints: Checkpoints,
    checkpoint_every: int,
    report: Callable[[int, dict[str, Any]], None] = lambda step, metrics: None,
    say: Callable[[str], None] = lambda text: None,
) -> Population:
    """Trains every member to `steps` updates, or until it diverges.

    Args:
      run: of `make_population_step`.
      population: where to start; its states are donated.
      rates: peak learning rates {group: [M]}.
      arrays: the data, on every device.
      steps: total updates of each member.
      batch_size: examples per update, for images/s.
      log_every: updates between metric lines.
      writers: one for each member.
      checkpoints: of the population; saved every `checkpoint_every` updates, at the end, and on a signal.
      checkpoint_every: updates between checkpoints.
      report: progress: the step, and means over the members that still train; `images_per_s` is that of all together.
      say: called when a member diverges.

    Returns:
      the population after `steps` updates; members that diverged stay where they did.

    Raises:
      Interrupted: SIGTERM or SIGINT came; the checkpoint is saved.
      InputError: a checkpoint could not be written; older ones are untouched.
    """
    windows = [Window() for _ in writers]
    # The step at which each member went bad, -1 while it trains [M]. A restored population knows some already.
    bad = np.full(population.size, -1, np.int32)
    for number, (step, _) in population.diverged.items():
        bad[number] = step
    rate, compiled = 0.0, False
    with SignalFlag() as flag:
        while population.step < steps and (bad < 0).any():
            step = population.step
            # As in `loop.fit`: up to the next event, and no longer than CHUNK_SECONDS at the present speed.
            n = min(
                steps - step, max(1, int(rate * CHUNK_SECONDS)), *(k - step % k for k in (log_every, checkpoint_every))
            )
            start = time.perf_counter()
            out = run(population.states, jnp.asarray(bad), rates, arrays, jnp.asarray(n, jnp.int32))
            # One transfer of [M] numbers. It waits for the chunk, so that the time taken below is that of the updates.
            now, metrics = jax.device_get((out.bad, out.metrics))
            seconds, step = max(time.perf_counter() - start, 1e-9), step + n
            # Members that are sound after the chunk; in the loop below, those that went bad in it.
            training = np.flatnonzero(now < 0).tolist()
            for number in np.flatnonzero((bad < 0) & (now >= 0)):
                names = not_finite({name: value[number] for name, value in metrics.items()}) or ["loss"]
                population.diverged[int(number)] = (int(now[number]), names)
                what = "the loss" if "loss" in names else " and ".join(names)
                say(f"member {number}: {what} became NaN or Inf at step {now[number]}; the others continue")
            # The old states were donated and no longer exist.
            population.states, population.step, bad = out.states, step, np.array(now)
            for number in training:
                own = {name: value[number] for name, value in metrics.items()}
                windows[number].add(own, n, seconds if compiled else 0.0)
            # Smoothed, in steps per second of every member.
            if compiled:
                rate = n / seconds if not rate else 0.7 * rate + 0.3 * n / seconds
            # The first chunk, of one step, holds the compilation: it must not count as speed.
            compiled = True
            report(step, _summary(metrics, training, rate * batch_size))
            if step % log_every == 0 or step == steps:
                for number in training:
                    line = windows[number].mean() | {"images_per_s": windows[number].images_per_s(batch_size)}
                    writers[number].write(step, "train", line)
                windows = [Window() for _ in writers]
            if step % checkpoint_every == 0 or step == steps:
                population.save(checkpoints)
            if flag.signum is not None:
                population.save(checkpoints)
                raise Interrupted(flag.signum, step)
    return population


def _summary(metrics: dict[str, Any], training: list[int], speed: float) -> dict[str, Any]:
    """Returns the means over the members that train, and the speed of all together."""
    shown = {name: float(np.mean(metrics[name][training])) for name in SHOWN if name in metrics and training}
    return shown | {"images_per_s": speed * len(training)}
