"""Gradient estimators: how the loss gets its gradient through the posterior sample.

An estimator draws the samples and may rewrite a cost: the value stays, bit for bit, and the gradient becomes the
estimator's. Objectives stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from vae_jax import prng
from vae_jax.model import Context


@dataclass(frozen=True)
class Pathwise:
    """Reparameterisation: the gradient flows through z = g(eps, phi) (arXiv:1312.6114, sec. 2.4)."""

    stops_density: ClassVar[bool] = False  # the parameters of q are stopped in log q(z)
    scales_path: ClassVar[bool] = False  # dz is multiplied by `objective.path_factor`
    score: ClassVar[bool] = False  # a score-function estimator: needs log q(z), no path
    spaces: ClassVar[tuple[str, ...]] = ()  # spaces of z that it works for; () for all

    @property
    def samples(self) -> int:
        """Posterior samples an example that the estimator needs."""
        return 1

    def init_state(self) -> dict[str, Any]:
        """Returns the running state (a baseline): none by default."""
        return {}

    def draw(self, keys: jax.Array, q: Any, k: int, log_prob: bool) -> tuple[jax.Array, jax.Array | None, Any]:
        """Returns z [K, B, D], log q(z|x) [K, B] if `log_prob` else None, and the noise that `surrogate` may need."""
        if k == 1:
            if log_prob:
                z, log_q = q.sample_and_log_prob(keys)
                return z[None], log_q[None], None
            return q.sample(keys)[None], None, None
        each = prng.sample_keys(keys, jnp.arange(k))
        if log_prob:
            return *jax.vmap(q.sample_and_log_prob)(each), None
        return jax.vmap(q.sample)(each), None, None

    def surrogate(
        self, name: str, cost: jax.Array, q: Any, log_q: jax.Array | None, noise: Any, state: Any, ctx: Context
    ) -> tuple[jax.Array, Any]:
        """Returns (cost [K, B] with the estimator's gradient, new state).

        Args:
          name: which cost, "distortion" or "rate"; a baseline keeps one state for each.
          cost: [K, B], as the objective will see it.
          q: the posterior.
          log_q: log q(z|x) [K, B].
          noise: as of `draw`.
          state: running state.
          ctx: the step's context.
        """
        del name, q, log_q, noise, ctx
        return cost, state


@dataclass(frozen=True)
class StickingTheLanding(Pathwise):
    """STL: the parameters of q are stopped in log q(z); no variance where q is exact (arXiv:1703.09194).

    For bounds of several samples it is biased (arXiv:1810.04152): `dreg` is the unbiased form of it.
    """

    stops_density: ClassVar[bool] = True
    spaces: ClassVar[tuple[str, ...]] = ("real", "positive", "unit", "sphere")


@dataclass(frozen=True)
class DoublyReparameterized(Pathwise):
    """DReG: unbiased for importance-weighted bounds, path gradients weighted by w^2 (arXiv:1810.04152)."""

    stops_density: ClassVar[bool] = True
    scales_path: ClassVar[bool] = True
    spaces: ClassVar[tuple[str, ...]] = ("real", "positive", "unit", "sphere")
