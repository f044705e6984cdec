"""Generators of real latents by an ordinary differential equation between noise and data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from vae_jax import prng, spaces
from vae_jax.models.stage2 import statistics
from vae_jax.models.stage2.base import Around, Choices, Generator, guided, without_condition
from vae_jax.models.stage2.ode import Field, ode_log_prob
from vae_jax.networks.denoiser import Denoiser
from vae_jax.options.ranges import AtLeast, Between, Share


@dataclass(frozen=True)
class Continuous(Generator):
    """Base: z = x(t0), where x(t1) ~ N(0, scale^2 I) and dx/dt = v(x, t, c) with a trained network in v.

    Latents are normalized by `Around.stats`. `rate` is -log p(z|c) of this very flow, up to the tolerance of the
    solver; of latents of more than 64 numbers it is an unbiased estimate of it, by `probes` (`ode.ode_log_prob`).
    It needs the extra `ode`. Temperature is a factor of the noise at t1 alone, since no other is drawn: it shrinks
    the spread of samples, but is not p(z)^(1/temperature); 0 gives the image of the mean, one point.
    """

    width: Annotated[int, AtLeast(1)] = 256
    """Units of a layer of the network, or channels where the latents are a grid [h, w, c]."""
    blocks: Annotated[int, AtLeast(0)] = 4
    """Residual blocks, of two layers each."""
    dropout: Annotated[float, Share()] = 0.0
    """Share of the hidden units that drop out in training."""
    passes: Annotated[int, AtLeast(1)] = 32
    """Steps of the sampler, unless others are requested."""
    tolerance: Annotated[float, Between(1e-6, 0.1)] = 1e-5
    """Relative and absolute error of one step of the solver behind log p(z)."""
    probes: Annotated[int, AtLeast(1)] = 1
    """Random directions that estimate the divergence of more than 64 dimensions."""

    of: ClassVar[Literal["codes", "real"]] = "real"
    likelihood: ClassVar[Literal["exact", "bound", "none"]] = "exact"
    takes: ClassVar[tuple[str, ...]] = ("temperature", "guidance", "passes")

    def init(self, key: jax.Array, around: Around) -> dict[str, Any]:
        # Parameters depend on shapes alone: points [1, n], times [1], features [1, F].
        cond = jnp.zeros((1, around.cond)) if around.cond else None
        variables: Any = self._module(around).init(key, jnp.zeros((1, around.length)), jnp.zeros(1), cond)
        return variables["params"]

    def network(
        self,
        params: Any,
        cond: jax.Array | None,
        around: Around,
        keys: jax.Array | None = None,
        guidance: float = 1.0,
    ) -> Field:
        """Returns the network as a function of points and times.

        Args:
          params: as of `init`.
          cond: features [B, F]; None without a condition.
          around: what it was built for.
          keys: of dropout [B]; None outside training.
          guidance: as in `Choices`.

        Returns:
          the function (x [B, n], time [B]) -> float32 [B, n].
        """
        module = self._module(around)

        # Solvers know points and times only; parameters, condition and keys are bound here.
        def bound(cond: jax.Array | None) -> Field:
            return lambda x, t: jnp.asarray(module.apply({"params": params}, x, t, cond, keys))

        if cond is None or guidance == 1.0:
            return bound(cond)
        # Both conditions side by side in one batch.
        return partial(_guided, bound(jnp.concatenate([cond, without_condition(cond)])), guidance)

    def flow(self, network: Field) -> tuple[Field, tuple[float, float], float]:
        """Returns v with the network in it, the times (t0, t1) of data and noise, and the scale of the noise."""
        raise TypeError(f"{type(self).__name__} must define flow")

    def solve(self, network: Field, noise: jax.Array, steps: int) -> jax.Array:
        """Returns normalized latents of standard noise [B, n] by a fixed number of steps."""
        raise TypeError(f"{type(self).__name__} must define solve")

    def rate(self, params: Any, keys: jax.Array, z: jax.Array, cond: jax.Array | None, around: Around) -> jax.Array:
        # 1. In float32 whatever the compute type is: a step would never be as exact as the tolerance.
        around = around._replace(dtype=jnp.float32)

        def one(key: jax.Array, x: jax.Array, c: jax.Array | None) -> jax.Array:
            # Every example has steps of its own, so that its nats depend on no other.
            # The network takes batches, hence a batch of one; `vmap` adds the axis of the examples.
            velocity, span, scale = self.flow(self.network(params, None if c is None else c[None], around))
            return ode_log_prob(velocity, key, x, span, scale, tolerance=self.tolerance, probes=self.probes)

        # 2. log p of normalized latents, in units of which the density of the latents themselves is 1 / volume.
        log_p = jax.vmap(one)(keys, statistics.normalized(z, around.stats), cond)
        return statistics.log_volume(around.stats) - log_p

    def sample(
        self, params: Any, key: jax.Array, n: int, cond: jax.Array | None, around: Around, choices: Choices
    ) -> jax.Array:
        # Keyed by its index, a sample is the same however many there are. Nothing else is drawn.
        noise = prng.normal(prng.example_keys(key, jnp.arange(n)), (around.length,))
        network = self.network(params, cond, around, guidance=choices.guidance)
        # The number of steps is static: 0 in a request means that of the config.
        x = self.solve(network, choices.temperature * noise, choices.passes or self.passes)
        return statistics.denormalized(x, around.stats)

    def _module(self, around: Around) -> Denoiser:
        levels = spaces.leaves(around.latents)
        # Several levels, and shapes without a plane, are vectors.
        is_grid = len(levels) == 1 and len(levels[0].shape) == 3
        shape = levels[0].shape if is_grid else (around.length,)
        return Denoiser(shape, self.width, self.blocks, self.dropout, around.dtype)


def _guided(both: Field, guidance: float, x: jax.Array, t: jax.Array) -> jax.Array:
    """Returns what a network [2 B, n] for points with their condition, then without, says of points [B, n]."""
    out = both(jnp.tile(x, (2, 1)), jnp.tile(t, 2))
    return guided(out[: len(x)], out[len(x) :], guidance)
