"""Flow matching of real latents on straight paths (arXiv:2210.02747): x_t = (1 - t) e + t x, v(x_t, t) = E[x - e]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from vae_jax import prng
from vae_jax.models.stage2 import statistics
from vae_jax.models.stage2.base import Around
from vae_jax.models.stage2.continuous import Continuous
from vae_jax.models.stage2.ode import Field, Method, integrate


def velocity_loss(velocity: Field, x: jax.Array, t: jax.Array, noise: jax.Array) -> jax.Array:
    """Returns mean (v(x_t, t) - (x - e))^2 on the path from noise e at t = 0 to data x at t = 1.

    Args:
      velocity: v.
      x: data [B, n].
      t: times [B].
      noise: e, standard normal [B, n].

    Returns:
      float32 [B].
    """
    # The line from noise to data, along which the velocity of this pair is x - e.
    at = (1.0 - t)[:, None] * noise + t[:, None] * x
    # Many pairs pass through one point: the minimizer is their mean velocity, that of the whole flow.
    return jnp.mean(jnp.square(velocity(at, t) - (x - noise)), -1)


@dataclass(frozen=True)
class FlowMatching(Continuous):
    """Flow matching: a network is regressed on the velocity from noise to latents (arXiv:2210.02747).

    The loss is no bound on -log p(z); a network that gives zeros has 2 on normalized data.
    """

    method: Method = "heun"
    """Steps of the sampler: euler (first order, one call of the network per step), midpoint or heun (second, two)."""
    times: Literal["uniform", "logit-normal"] = "uniform"
    """Times in training: uniform on (0, 1), or more of the middle, where the velocity is hard (arXiv:2403.03206)."""

    def loss(
        self, params: Any, keys: jax.Array, z: jax.Array, cond: jax.Array | None, around: Around, train: bool
    ) -> tuple[jax.Array, Mapping[str, jax.Array]]:
        # One time per example.
        x = statistics.normalized(z, around.stats)
        own = prng.site_keys(keys, "level")
        # At the ends the best v is E[x] - e and x, both easy: logit-normal times visit them less.
        t = prng.uniform(own, ()) if self.times == "uniform" else jax.nn.sigmoid(prng.normal(own, ()))
        network = self.network(params, cond, around, keys if train else None)
        return velocity_loss(network, x, t, prng.normal(prng.site_keys(keys, "noise"), x.shape[1:])), {}

    def flow(self, network: Field) -> tuple[Field, tuple[float, float], float]:
        # The network is the velocity; noise is at 0 and data at 1.
        return network, (1.0, 0.0), 1.0

    def solve(self, network: Field, noise: jax.Array, steps: int) -> jax.Array:
        # Even steps: paths are nearly straight, so that no part needs shorter ones.
        return integrate(network, noise, jnp.linspace(0.0, 1.0, steps + 1), self.method)
