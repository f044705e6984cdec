"""Score-function estimators: the gradient of E_q[f(z)] from values of f alone, so that z may be discrete.

grad E_q[f] = E_q[(f(z) - b) grad log q(z)] + E_q[grad f], for any b that does not depend on z. Each estimator is
unbiased; they differ in variance. The signal of an example uses no other example, but for a running baseline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from vae_jax import collectives, prng
from vae_jax.model import Context
from vae_jax.objectives.gradients import Pathwise
from vae_jax.options.ranges import AtLeast, Share
from vae_jax.spaces import Bits, Space

# The costs that get a signal. Each has a baseline of its own: their means can differ by orders of magnitude.
COSTS = ("distortion", "rate")


@dataclass(frozen=True)
class Score(Pathwise):
    """Base of the score-function estimators: exact samples without a path, and log q of them."""

    score: ClassVar[bool] = True

    def draw(self, keys: jax.Array, q: Any, k: int, log_prob: bool) -> tuple[jax.Array, jax.Array | None, Any]:
        """Returns z [K, B, D] without gradient, log q(z|x) [K, B], and no noise."""
        # z is data from here on; the signal reaches the encoder through log q(z), whose parameters are not stopped.
        z = jax.lax.stop_gradient(super().draw(keys, q, k, False)[0])
        return z, jax.vmap(q.log_prob)(z) if log_prob else None, None


@dataclass(frozen=True)
class Reinforce(Score):
    """Score function (f - b) grad log q with a baseline b; any posterior with a density (Williams 1992).

    Example:
      >>> estimator, cost = Reinforce(baseline="none"), jnp.array([[2.0]])
      >>> value = lambda log_q: estimator.surrogate("rate", cost, None, log_q, None, {}, None)[0].sum()
      >>> float(value(jnp.zeros((1, 1)))), jax.grad(value)(jnp.zeros((1, 1))).tolist()
      (2.0, [[2.0]])
    """

    baseline: Literal["mean", "none"] = "mean"
    """What is subtracted from the cost: its moving average, or nothing."""
    decay: Annotated[float, Share()] = 0.99
    """Decay of the moving average, per step."""

    def init_state(self) -> dict[str, Any]:
        if self.baseline == "none":
            return {}
        # An average that starts at 0, and the weight it has gathered, by which it is divided.
        return {name: {"mean": jnp.zeros(()), "weight": jnp.zeros(())} for name in COSTS}

    def surrogate(self, name, cost, q, log_q, noise, state, ctx: Context) -> tuple[jax.Array, Any]:
        del name, q, noise
        if self.baseline == "none":
            return with_score(cost, cost, log_q), state
        # The average of earlier steps: one with this step's costs in it would make the estimator biased.
        baseline = state["mean"] / jnp.maximum(state["weight"], 1e-12)
        # One baseline for all devices: the mean of the global batch.
        now = collectives.pmean(jnp.mean(jax.lax.stop_gradient(cost)), ctx.axis_name)
        new = {
            "mean": self.decay * state["mean"] + (1 - self.decay) * now,
            "weight": self.decay * state["weight"] + (1 - self.decay),
        }
        return with_score(cost, cost - baseline, log_q), new


@dataclass(frozen=True)
class LeaveOneOut(Score):
    """RLOO: K samples, each with the mean cost of the others as its baseline (Kool et al. 2019).

    Example:
      >>> estimator, cost = LeaveOneOut(k=2), jnp.array([[1.0], [3.0]])
      >>> value = lambda log_q: estimator.surrogate("rate", cost, None, log_q, None, {}, None)[0].sum()
      >>> jax.grad(value)(jnp.zeros((2, 1))).tolist()  # 1 - 3 and 3 - 1
      [[-2.0], [2.0]]
    """

    k: Annotated[int, AtLeast(2, "each sample's baseline is the mean of the others")] = 4
    """Samples per example, K; 2 or more."""

    @property
    def samples(self) -> int:
        return self.k

    def surrogate(self, name, cost, q, log_q, noise, state, ctx) -> tuple[jax.Array, Any]:
        del name, q, noise, ctx
        # [K, B]. Leaving out f(z_k) makes the baseline independent of z_k: with it the gradient would be biased.
        count = cost.shape[0]
        others = (jnp.sum(cost, 0, keepdims=True) - cost) / (count - 1)
        return with_score(cost, cost - others, log_q), state


@dataclass(frozen=True)
class Arm(Score):
    """ARM for binary codes: (f(z) - f(z')) (u - 1/2), z and z' from one uniform u (arXiv:1807.11143).

    Example:
      >>> from vae_jax.distributions.categorical import IndependentBernoulli
      >>> keys = jax.random.split(jax.random.key(0), 1)
      >>> z, _, u = Arm().draw(keys, IndependentBernoulli(jnp.zeros((1, 4))), 2, False)
      >>> (z[0] + z[1]).tolist()  # even odds: the pair always differs
      [[1.0, 1.0, 1.0, 1.0]]
    """

    spaces: ClassVar[tuple[type[Space], ...]] = (Bits,)

    @property
    def samples(self) -> int:
        return 2

    def draw(self, keys, q, k, log_prob) -> tuple[jax.Array, jax.Array | None, Any]:
        """Returns the antithetic pair z = 1[u > sigmoid(-l)], z' = 1[u < sigmoid(l)], [2, B, D], and u [B, D]."""
        if k != 2:
            raise ValueError(f"an antithetic pair is two samples, not {k}")
        # One u for the pair, read as u and as 1 - u: each code has the distribution q, and their difference in cost has
        # little variance.
        u = prng.uniform(keys, q.logits.shape[1:])
        z = jnp.stack([u > jax.nn.sigmoid(-q.logits), u < jax.nn.sigmoid(q.logits)]).astype(jnp.float32)
        return z, jax.vmap(q.log_prob)(z) if log_prob else None, u

    def surrogate(self, name, cost, q, log_q, noise, state, ctx) -> tuple[jax.Array, Any]:
        del name, log_q, ctx
        # [B, D]: one difference of costs per example, spread over the logits.
        signal = (cost[0] - cost[1])[:, None] * self.direction(q.logits, noise)
        # Of value 0. Its gradient for the logits is the signal, without passing through log q.
        along = jnp.sum(jax.lax.stop_gradient(signal) * (q.logits - jax.lax.stop_gradient(q.logits)), -1)
        # The mean over the pair, which the objective takes, is along once.
        return cost + along[None], state

    def direction(self, logits: jax.Array, u: jax.Array) -> jax.Array:
        """Returns what multiplies f(z) - f(z') in the gradient for the logits, [B, D]."""
        del logits
        return u - 0.5


@dataclass(frozen=True)
class DisArm(Arm):
    """DisARM (U2G) for binary codes: ARM with u integrated out given the pair (arXiv:2006.10680, arXiv:2006.10679).

    Example:
      >>> u, logits = jnp.array([[0.75, 0.3]]), jnp.array([[0.0, 2.0]])
      >>> DisArm().direction(logits, u).tolist()  # the pair differs, then agrees
      [[0.25, 0.0]]
    """

    def direction(self, logits: jax.Array, u: jax.Array) -> jax.Array:
        """Returns 1/2 (-1)^z' 1[z != z'] sigmoid(|l|) [B, D]."""
        first, second = u > jax.nn.sigmoid(-logits), u < jax.nn.sigmoid(logits)
        sign = jnp.where(second, -0.5, 0.5)
        # Where both codes agree, u given the pair is symmetric about 1/2 and the expectation of u - 1/2 is 0.
        return jnp.where(first != second, sign * jax.nn.sigmoid(jnp.abs(logits)), 0.0)


def with_score(cost: jax.Array, signal: jax.Array, log_q: jax.Array | None) -> jax.Array:
    """Returns cost [K, B], bit for bit, whose gradient is grad cost + signal grad log q."""
    assert log_q is not None
    # The bracket has the value 0, so that the objective sees the cost unchanged.
    return cost + jax.lax.stop_gradient(signal) * (log_q - jax.lax.stop_gradient(log_q))
