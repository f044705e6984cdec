"""MaskGIT: a transformer that fills in masked codes, most confident first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from vae_jax import prng
from vae_jax.models.stage2 import draw
from vae_jax.models.stage2.base import Around, Choices
from vae_jax.models.stage2.unmasking import Unmasking
from vae_jax.options.ranges import AtLeast, NotNegative


def mask_ratio(r: jax.Array) -> jax.Array:
    """Returns cos(pi r / 2), the share of masked codes at the point r in [0, 1] of generation; over all r 2 / pi."""
    # Above 1 - r for all r between 0 and 1: training sees more of the start, where little is known.
    return jnp.cos(0.5 * jnp.pi * r)


@dataclass(frozen=True)
class Masked(Unmasking):
    """MaskGIT: codes from the codes that are not masked, in few parallel passes (arXiv:2202.04200). No likelihood.

    Training masks ceil(n cos(pi r / 2)) of n codes, r uniform, and scores these alone. Each pass of sampling draws all
    masked codes, and keeps those with the highest  log p + noise (1 - t) Gumbel,  t the share of passes made.
    """

    passes: Annotated[int, AtLeast(1)] = 12
    """Passes of sampling, where the draw does not say; no more than there are places."""
    noise: Annotated[float, NotNegative()] = 4.5
    """Of the order of uncovering, at the start: with 0 always the most confident first, with much at random."""

    def left(self, masked: int, passes: int) -> list[int]:
        passes = passes or self.passes
        # Python integers: they fix the length of the sampler's scan.
        counts = [masked]
        for i in range(1, passes + 1):
            # At least one code is uncovered in each pass.
            cosine = 0 if i == passes else math.floor(masked * math.cos(0.5 * math.pi * i / passes))
            counts.append(max(min(cosine, counts[-1] - 1), 0))
            # With more passes than places it ends early.
            if counts[-1] == 0:
                break
        return counts[1:]

    def priority(self, keys: jax.Array, log_p: jax.Array, share: float | jax.Array, choices: Choices) -> jax.Array:
        # Without noise every sample starts from what is most predictable, and variety is lost.
        noise = jax.vmap(lambda key: jax.random.gumbel(key, log_p.shape[1:]))(prng.site_keys(keys, "order"))
        return log_p + self.noise * choices.temperature * share * noise

    def loss(
        self, params: Any, keys: jax.Array, z: jax.Array, cond: jax.Array | None, around: Around, train: bool
    ) -> tuple[jax.Array, Mapping[str, jax.Array]]:
        # One mask per example, of its own key: neither the batch nor the layout of devices changes it.
        ratio = mask_ratio(prng.uniform(prng.site_keys(keys, "ratio"), ()))
        # At least one code: without any there is nothing to learn, and 0 / 0 in the log.
        count = jnp.clip(jnp.ceil(around.length * ratio), 1, around.length)
        masked = draw.at_random(prng.site_keys(keys, "places"), count.astype(jnp.int32), around.length)
        # Nats [B], the sum over masked codes alone; their mean is for the log.
        nats = self.nats(self.logits(params, keys if train else None, z, masked, cond, around), z, masked)
        return nats, {"masked_share": jnp.mean(count) / around.length, "nats_per_code": jnp.mean(nats / count)}
