"""Generators that uncover masked codes, several places at a time, each seen from all codes that are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import prng
from vae_jax.models.stage2 import draw
from vae_jax.models.stage2.base import Around, Choices, guided, without_condition
from vae_jax.models.stage2.tokens import Tokens


@dataclass(frozen=True)
class Unmasking(Tokens):
    """Base: p(z_i | codes that are not masked), for all masked i in one pass."""

    takes: ClassVar[tuple[str, ...]] = ("temperature", "top_k", "top_p", "guidance", "passes", "prompt")

    def left(self, masked: int, passes: int) -> list[int]:
        """Returns how many places are still masked after each pass; it falls from pass to pass, and ends with 0.

        Args:
          masked: number of places masked at the start, 1 or more.
          passes: how many there are; 0 for the generator's own.
        """
        raise TypeError(f"{type(self).__name__} must define left")

    def priority(self, keys: jax.Array, log_p: jax.Array, share: float | jax.Array, choices: Choices) -> jax.Array:
        """Orders the masked places.

        Args:
          keys: of the examples in this pass, [B].
          log_p: log probability of the codes just drawn, float32 [B, n].
          share: of the passes that are left after this one.
          choices: of the draw.

        Returns:
          float32 [B, n]; the places with the highest numbers are uncovered first.
        """
        raise TypeError(f"{type(self).__name__} must define priority")

    def logits(
        self,
        params: Any,
        keys: jax.Array | None,
        z: jax.Array,
        masked: jax.Array,
        cond: jax.Array | None,
        around: Around,
    ) -> jax.Array:
        """Scores the codes of all places in one pass, from the codes that are not masked alone.

        Args:
          params: as of `init`.
          keys: one per example [B] for the noise of training; None outside.
          z: int32 [B, n]; of no meaning where masked.
          masked: bool [B, n].
          cond: features [B, F]; None without a condition.
          around: what it was built for.

        Returns:
          logits, float32 [B, n, K].
        """
        logits = jnp.asarray(self.module(around).apply({"params": params}, z, cond, masked, keys))
        # [B, n, K], where K is that of the largest codebook of any place.
        return draw.possible(logits, jnp.asarray(around.sizes, jnp.int32)[None])

    def nats(self, logits: jax.Array, z: jax.Array, masked: jax.Array) -> jax.Array:
        """Returns -log p of the codes at the masked places alone, their sum [B]."""
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits, -1), z[..., None], -1)[..., 0]
        # Known codes are input of the network: it has nothing to say of them.
        return -jnp.sum(jnp.where(masked, log_p, 0.0), -1)

    def sample(
        self, params: Any, key: jax.Array, n: int, cond: jax.Array | None, around: Around, choices: Choices
    ) -> jax.Array:
        keys = prng.example_keys(key, jnp.arange(n))
        prompt = choices.prompted(n)
        # Static, as the schedule depends on how many places are known.
        known, places = prompt.shape[1], around.length
        z = jnp.pad(prompt, ((0, 0), (0, places - known)))
        # A schedule has at least one masked place.
        if known == places:
            return z

        # One entry for each pass, all known before tracing: number, places still masked, share of passes left.
        left = self.left(places - known, choices.passes)
        numbers = np.arange(len(left))
        share = np.float32(1 - (numbers + 1) / len(left))
        at = (jnp.asarray(numbers), jnp.asarray(left, jnp.int32), jnp.asarray(share))
        # A prompt comes first in raster order, and is never masked.
        masked = jnp.broadcast_to(jnp.arange(places)[None] >= known, (n, places))
        logits = partial(self._guided, params, cond=cond, around=around, guidance=choices.guidance)
        return jax.lax.scan(partial(self._unmasked, logits, keys, choices), (z, masked), at)[0][0]

    def _unmasked(
        self,
        logits_of: Callable[[jax.Array, jax.Array], jax.Array],
        keys: jax.Array,
        choices: Choices,
        held: tuple[jax.Array, jax.Array],
        at: tuple[jax.Array, ...],
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        """Returns codes [n, places] and what is masked of them after one pass, and None as `scan` wants it."""
        (z, masked), (number, left, share) = held, at
        # Each pass has noise of its own; that of a sample does not depend on the others.
        now = prng.numbered_keys(keys, number)
        # Draw a code at every masked place at once, as if the others were known to be independent of it ...
        logits = logits_of(z, masked)
        drawn = draw.everywhere(now, logits, choices)
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits, -1), drawn[..., None], -1)[..., 0]
        # ... and keep those of highest priority; the rest is masked again. What is known stays known.
        first = jnp.where(masked, self.priority(now, log_p, share, choices), jnp.inf)
        stay = draw.lowest(first, jnp.full(len(z), left))
        return (jnp.where(masked & ~stay, drawn, z), stay), None

    def _guided(
        self, params: Any, z: jax.Array, masked: jax.Array, cond: jax.Array | None, around: Around, guidance: float
    ) -> jax.Array:
        """Returns the logits of sampling, [n, places, K]: with and without the condition in one batch."""
        if cond is None or guidance == 1.0:
            return self.logits(params, None, z, masked, cond, around)
        # One call on [2 n, places] in place of two.
        both = jnp.concatenate([cond, without_condition(cond)])
        logits = self.logits(params, None, jnp.tile(z, (2, 1)), jnp.tile(masked, (2, 1)), both, around)
        with_cond, without = jnp.split(logits, 2)
        return guided(with_cond, without, guidance)
