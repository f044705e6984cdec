"""Free bits: a floor under the rate, below which it costs nothing, against posterior collapse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import collectives
from vae_jax.model import Context, Metrics
from vae_jax.objectives.base import Objective, Terms
from vae_jax.options.ranges import AtLeast, NotNegative, Positive


@dataclass(frozen=True)
class FreeBits(Objective):
    """Free bits: sum_j max(lambda, E KL_j) in place of the rate, E over the batch (arXiv:1606.04934, eq. 15).

    Example:
      >>> kl = jnp.array([[0.25, 2.0]])
      >>> terms = Terms(*[None] * 4, distortion=jnp.array([10.0]), rate=jnp.sum(kl, -1), kl_per_dim=kl)
      >>> objective = FreeBits(free_nats=0.5)
      >>> objective.loss(terms, Context(0, jnp.arange(1), objective.hyper()))[0].tolist()  # 10 + 0.5 + 2
      [12.5]
    """

    free_nats: Annotated[float, NotNegative()] = 0.25
    """lambda: nats of each unit that cost nothing."""
    unit: Literal["dimension", "group", "all"] = "dimension"
    """What has a floor of its own: each latent variable, each of `groups` groups of them, or all together."""
    groups: Annotated[int, AtLeast(1)] = 2
    """Number of groups of neighboring latent variables (with unit = group)."""

    couples: ClassVar[bool] = True
    by_dimension: ClassVar[bool] = True

    def hyper(self) -> dict[str, float]:
        return {"free_nats": self.free_nats}

    def loss(self, terms: Terms, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (distortion + s(step) sum_u max(lambda, E KL_u), metrics): [B] in nats."""
        assert terms.kl_per_dim is not None
        # [G]. The mean over the batch comes first, as in the paper: with a floor per example, those below it would have
        # no gradient even where the unit as a whole is above.
        kl = collectives.pmean(jnp.mean(terms.kl_per_dim, 0), ctx.axis_name)
        # Index sets are static. With more groups than variables some are empty and have no floor.
        if self.unit != "dimension":
            parts = np.array_split(np.arange(len(kl)), self.groups if self.unit == "group" else 1)
            kl = jnp.stack([jnp.sum(kl[part]) for part in parts if len(part)])
        # A sum over units: lambda nats are free for each of them.
        floored = jnp.sum(jnp.maximum(kl, ctx.hyper["free_nats"]))
        # What the floor holds up has no gradient: these units may use their free nats.
        share = jnp.mean(jnp.asarray(kl < ctx.hyper["free_nats"], jnp.float32))
        metrics = {"floored_rate": floored, "units_at_floor": share}
        return terms.distortion + self.schedule(ctx.step) * floored, metrics


@dataclass(frozen=True)
class MinimumKL(Objective):
    """A minimum for the whole rate: distortion + max(target, E KL), E over the batch (arXiv:1606.04934).

    Example:
      >>> terms = Terms(*[None] * 4, distortion=jnp.array([10.0, 20.0]), rate=jnp.array([1.0, 5.0]), kl_per_dim=None)
      >>> objective = MinimumKL(target=5.0)
      >>> objective.loss(terms, Context(0, jnp.arange(2), objective.hyper()))[0].tolist()  # + max(5, 3)
      [15.0, 25.0]
    """

    target: Annotated[float, NotNegative()] = 5.0
    """Rate below which it costs nothing, nats."""

    couples: ClassVar[bool] = True

    def hyper(self) -> dict[str, float]:
        return {"target": self.target}

    def loss(self, terms: Terms, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (distortion + s(step) max(target, E KL), metrics): [B] in nats."""
        # The rate of the global batch: max of a mean is not the mean of maxima, so shards must agree first.
        rate = collectives.pmean(jnp.mean(terms.rate), ctx.axis_name)
        floored = jnp.maximum(rate, ctx.hyper["target"])
        return terms.distortion + self.schedule(ctx.step) * floored, {"floored_rate": floored}


@dataclass(frozen=True)
class SoftFreeBits(Objective):
    """Soft free bits: distortion + gamma * rate, gamma <= 1 adapted to hold the rate at a target (arXiv:1611.02731).

    Example:
      >>> terms = Terms(*[None] * 4, distortion=jnp.array([10.0]), rate=jnp.array([3.0]), kl_per_dim=None)
      >>> objective = SoftFreeBits(target=5.0)
      >>> ctx = Context(0, jnp.arange(1), objective.hyper())
      >>> loss, _, state = objective.step(terms, ctx, {"gamma": jnp.array(0.5)})
      >>> loss.tolist(), round(float(state["gamma"]), 4)  # 10 + 0.5 * 3; below the target: 0.5 / 1.05
      ([11.5], 0.4762)
    """

    target: Annotated[float, NotNegative()] = 5.0
    """Rate that is held, nats."""
    speed: Annotated[float, Positive()] = 0.05
    """Share by which gamma rises or falls in a step."""
    slack: Annotated[float, NotNegative()] = 0.05
    """gamma rises only where the rate is above (1 + slack) * target."""

    couples: ClassVar[bool] = True

    def hyper(self) -> dict[str, float]:
        return {"target": self.target}

    def init_state(self) -> dict[str, Any]:
        # Starts as the ELBO; gamma falls while the rate is below its target.
        return {"gamma": jnp.ones(())}

    def step(self, terms: Terms, ctx: Context, state: Any) -> tuple[jax.Array, Metrics, Any]:
        """Returns (distortion + s(step) gamma rate, metrics, state): [B] in nats.

        gamma <- (1 + speed) gamma where the batch's rate is above the slack, gamma / (1 + speed) where it is below the
        target, kept in [1e-4, 1].
        """
        # gamma is that of the steps before; this step's rate moves it for the next one, without a gradient.
        gamma, target = state["gamma"], ctx.hyper["target"]
        loss = terms.distortion + self.schedule(ctx.step) * gamma * terms.rate
        if not ctx.train:
            return loss, {"gamma": gamma}, state
        # From the global batch, so that every device keeps the same multiplier.
        rate = collectives.pmean(jax.lax.stop_gradient(jnp.mean(terms.rate)), ctx.axis_name)
        up, down = gamma * (1.0 + self.speed), gamma / (1.0 + self.speed)
        moved = jnp.where(rate > (1.0 + self.slack) * target, up, jnp.where(rate < target, down, gamma))
        # At 0 a multiplicative update would be stuck for good; above 1 the rate would cost more than in the ELBO.
        return loss, {"gamma": gamma}, {"gamma": jnp.clip(moved, 1e-4, 1.0)}
