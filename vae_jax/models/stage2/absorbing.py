"""Absorbing-state diffusion over codes: codes are masked in random order, and uncovered in the opposite one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from vae_jax import prng
from vae_jax.models.stage2 import draw
from vae_jax.models.stage2.base import Around, Choices
from vae_jax.models.stage2.unmasking import Unmasking
from vae_jax.options.ranges import AtLeast


@dataclass(frozen=True)
class Absorbing(Unmasking):
    """Discrete diffusion with an absorbing mask (arXiv:2107.03006), in continuous time (arXiv:2406.07524).

        -log p(z) <= int_0^1 dt/t E sum_(masked i) -log p(z_i | rest) = E_(m, S) n/m sum_(i in S) -log p(z_i | not S)

    At time t every code is masked with probability t. The integral over t given the number m of masked codes is done
    exactly, which leaves m uniform on 1 .. n, S a random set of m places, and less variance. The bound is the mean over
    all n! orders of the autoregressive -log p: the order of uncovering is what it leaves out.

    Ancestral sampling uncovers n / passes codes per pass, at random places. With one code per pass it draws from the
    mixture over all orders, which the reverse process in continuous time is (arXiv:2409.02908).
    """

    passes: Annotated[int, AtLeast(1)] = 64
    """Passes of sampling, where the draw does not say; with as many as there are places it is exact."""
    masks: Annotated[int, AtLeast(1)] = 8
    """Masks per example over which evaluation takes the mean of the bound, stratified over m; training has one."""

    likelihood: ClassVar[Literal["exact", "bound", "none"]] = "bound"

    def left(self, masked: int, passes: int) -> list[int]:
        # An even schedule, in integers: rounding leaves no place masked after the last pass.
        passes = min(passes or self.passes, masked)
        return [masked * (passes - i) // passes for i in range(1, passes + 1)]

    def priority(self, keys: jax.Array, log_p: jax.Array, share: float | jax.Array, choices: Choices) -> jax.Array:
        # Random, not by confidence: sampled orders must be those over which the bound takes its mean.
        del share, choices
        return prng.uniform(prng.site_keys(keys, "order"), log_p.shape[1:])

    def loss(
        self, params: Any, keys: jax.Array, z: jax.Array, cond: jax.Array | None, around: Around, train: bool
    ) -> tuple[jax.Array, Mapping[str, jax.Array]]:
        # One mask from all of 1 .. n: unbiased, at the cost of one pass of the network.
        return self._bound(params, keys if train else None, keys, z, cond, around, jnp.asarray(0), 1), {}

    def rate(self, params: Any, keys: jax.Array, z: jax.Array, cond: jax.Array | None, around: Around) -> jax.Array:
        # One mask after another: memory does not grow with their number.
        draws = jax.lax.map(
            lambda i: self._bound(params, None, keys, z, cond, around, i, self.masks), jnp.arange(self.masks)
        )
        return jnp.mean(draws, 0)

    def _bound(
        self,
        params: Any,
        noise: jax.Array | None,
        keys: jax.Array,
        z: jax.Array,
        cond: jax.Array | None,
        around: Around,
        number: jax.Array,
        of: int,
    ) -> jax.Array:
        """Returns one draw of the bound in nats [B], with m from stratum `number` of `of` strata of 1 .. n.

        Args:
          params: as of `init`.
          noise: keys of dropout [B]; None outside training.
          keys: of the masks [B].
          z: int32 [B, n].
          cond: features [B, F]; None without a condition.
          around: what it was built for.
          number: int32 scalar, of the stratum.
          of: how many strata there are.
        """
        n = around.length
        # Strata of one example, not of the batch: its bound depends on its own key alone.
        own = prng.numbered_keys(keys, number)
        # u is uniform on the stratum's share of [0, 1), and m follows from it.
        u = (number + prng.uniform(prng.site_keys(own, "count"), ())) / of
        # A product that float32 rounds up to n would be one mask too many.
        m = jnp.minimum(jnp.floor(n * u), n - 1) + 1
        masked = draw.at_random(prng.site_keys(own, "places"), m.astype(jnp.int32), n)
        # Nats [B]; n / m makes of a sum over m places an unbiased one over n.
        return n / m * self.nats(self.logits(params, noise, z, masked, cond, around), z, masked)
