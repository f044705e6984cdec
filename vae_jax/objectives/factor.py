"""FactorVAE: total correlation by a critic's density ratio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from vae_jax import collectives, prng
from vae_jax.model import Context, Metrics
from vae_jax.objectives import critic as critics
from vae_jax.objectives.base import Objective, Terms
from vae_jax.options.ranges import EACH_AT_LEAST_ONE, NotNegative
from vae_jax.spaces import Positive, Real, Space, UnitInterval


def permuted(key: jax.Array, z: jax.Array) -> jax.Array:
    """Returns z [B, D] with every dimension shuffled over the batch on its own: samples of prod_j q(z_j)."""
    # `independent` shuffles each column apart. Moving whole rows would give samples of q(z) again.
    return jax.random.permutation(key, z, axis=0, independent=True)


@dataclass(frozen=True)
class Factor(Objective):
    """FactorVAE: distortion + rate + gamma * TC, the TC from a critic that knows permuted codes (arXiv:1802.05983)."""

    gamma: Annotated[float, NotNegative()] = 10.0
    """Weight of the total correlation."""
    hidden: Annotated[tuple[int, ...], EACH_AT_LEAST_ONE] = (1000,) * 6
    """Widths of the critic's hidden layers (leaky ReLU). It trains with `critic_optimizer`."""

    couples: ClassVar[bool] = True
    path: ClassVar[bool] = True
    noisy: ClassVar[bool] = True
    critic: ClassVar[bool] = True
    spaces: ClassVar[tuple[type[Space], ...]] = (Real, Positive, UnitInterval)

    def hyper(self) -> dict[str, float]:
        return {"gamma": self.gamma}

    def init(self, key: jax.Array, code_dim: int) -> dict[str, Any]:
        return critics.init(key, code_dim, self.hidden)

    def step(self, terms: Terms, ctx: Context, state: Any, critic: Any) -> tuple[jax.Array, Metrics, Any]:
        """Returns (distortion + s(step) (rate + gamma ln D / (1 - D)), metrics, state): [B] in nats.

        The critic D(z) tells codes (1) from permuted codes of the same global batch (0); its own loss adds nothing to
        the value, only its gradient (arXiv:1802.05983, alg. 2, with one batch in place of two).
        """
        # 1. TC of each example, ln D - ln(1 - D) = the logit itself. The critic is stopped: minimizing the TC must move
        #    the encoder, and not teach the critic to report a small one.
        tc = critics.logit(jax.lax.stop_gradient(critic), terms.z)
        # 2. The critic's own loss, on stopped codes. Every device permutes the same global batch with the same key, so
        #    that the critic gets one gradient; permuting within shards would mix fewer examples.
        z = collectives.all_gather(jax.lax.stop_gradient(terms.z), ctx.axis_name)
        shuffled = permuted(prng.site_key(terms.key, "permutation"), z)
        own, metrics = critics.cross_entropy(critic, z, shuffled)
        # 3. The encoder's cost. `own` has the value 0.
        cost = self.schedule(ctx.step) * (terms.rate + ctx.hyper["gamma"] * tc)
        return terms.distortion + cost + own, {"tc": jnp.mean(tc), **metrics}, state
