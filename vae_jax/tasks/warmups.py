"""Warm-ups that a run is too short for: it would end before the weight, capacity or rate that its options name."""

from __future__ import annotations

from collections.abc import Iterator

from vae_jax.errors import option, options
from vae_jax.runs.config import Config, flatten

# Option with the length of a warm-up in steps -> (what moves, the option with the steps before it, "" for none).
_WARMUPS = {
    "model.objective.schedule.steps": ("the weight of the KL", "model.objective.schedule.hold"),
    "model.objective.capacity_steps": ("the capacity", ""),
    "optimizer.schedule.warmup_steps": ("the learning rate", ""),
    "critic_optimizer.schedule.warmup_steps": ("the critic's learning rate", ""),
}


def notes(config: Config) -> Iterator[str]:
    """Yields a line for each warm-up that is longer than the run, with the option and a value that fits."""
    known = flatten(config)
    for name, (what, before) in _WARMUPS.items():
        hold = known.get(before, 0)
        if known.get(name, 0) + hold <= config.steps:
            continue
        # What is left after the steps before it, and half of that at the full value; else those have to go as well.
        left = config.steps - hold
        fits = {name: left // 2} if left > 1 else ({before: 0} if before else {}) | {name: max(1, config.steps // 2)}
        end = known[name] + hold
        ends = f"but the run ends at step {config.steps:,}"
        yield f"{option(name)}: {what} moves until step {end:,}, {ends}; use {options(fits)}"
