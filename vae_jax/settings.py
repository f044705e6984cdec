"""Options of single metrics; every field is a flag of `vae-jax eval`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a metric may be told."""

    k: tuple[int, ...] | None = None
    """Samples of the importance-weighted bounds, one bound each (default: the run's config)."""

    def check(self) -> None:
        """Raises InputError for a value out of range; the message names the flag."""
