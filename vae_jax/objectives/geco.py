"""GECO: the rate is minimized under a constraint on the reconstruction error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from vae_jax import collectives
from vae_jax.model import Context, Metrics
from vae_jax.objectives.base import Objective, Terms
from vae_jax.options.ranges import Above, Positive, Share


@dataclass(frozen=True)
class Geco(Objective):
    """GECO: rate + lambda (squared error - tolerance), lambda a running multiplier (arXiv:1810.00597).

    Example:
      >>> from vae_jax.likelihoods import GaussianPixels
      >>> x = jnp.zeros((1, 1, 2, 1))
      >>> p_x = GaussianPixels(jnp.ones_like(x), jnp.zeros(()))  # squared error 2
      >>> terms = Terms(x, None, None, p_x, distortion=jnp.array([10.0]), rate=jnp.array([3.0]), kl_per_dim=None)
      >>> objective = Geco(tolerance=0.5)
      >>> ctx = Context(0, jnp.arange(1), objective.hyper())
      >>> loss, _, state = objective.step(terms, ctx, objective.init_state())
      >>> loss.tolist(), round(float(state["log_lambda"]), 4)  # 3 + (2 - 2 * 0.5^2); lambda grows
      ([4.5], 0.01)
    """

    tolerance: Annotated[float, Positive()] = 0.1
    """Root mean squared error of a pixel that is aimed at, in units of the data (which lie in [0, 1])."""
    decay: Annotated[float, Share()] = 0.99
    """Decay of the moving average of the violation, per step."""
    speed: Annotated[float, Positive()] = 0.01
    """Rate at which lambda grows while the error is over twice its limit, per step."""
    max_lambda: Annotated[float, Above(1)] = 1e6
    """Largest lambda; the smallest is its inverse."""

    couples: ClassVar[bool] = True
    path: ClassVar[bool] = True

    def hyper(self) -> dict[str, float]:
        return {"tolerance": self.tolerance}

    def init_state(self) -> dict[str, Any]:
        # The logarithm keeps lambda positive and its updates relative. `weight` debiases the average of the violation.
        return {"log_lambda": jnp.zeros(()), "violation": jnp.zeros(()), "weight": jnp.zeros(())}

    def step(self, terms: Terms, ctx: Context, state: Any) -> tuple[jax.Array, Metrics, Any]:
        """Returns (s(step) rate + lambda (|x - E[x|z]|^2 - P tolerance^2), metrics, state): [B], P pixels.

        v = E |x - E[x|z]|^2 / (P tolerance^2) - 1 over the global batch; lambda <- lambda exp(speed v_ma), where v_ma
        is the moving average of v, cut to [-1, 1] (arXiv:1810.00597, alg. 1). Evaluation leaves lambda as it is.
        """
        # Squared error of a whole image, P tolerance^2, in squared units of the data.
        limit = math.prod(terms.x.shape[1:]) * jnp.square(ctx.hyper["tolerance"])
        # [B]. Summed over pixels, as log p(x|z) is: lambda then trades nats of rate for squared error.
        square, axes = jnp.square(terms.x - terms.likelihood.mean()), tuple(range(1, terms.x.ndim))
        if terms.mask is not None:
            # P counts what is observed, in the whole batch: an example of few pixels may err by as much on each.
            square = jnp.where(terms.mask, square, 0.0)
            count = jnp.sum(terms.mask, dtype=jnp.float32)
            share = collectives.pmean(count, ctx.axis_name) / terms.mask.size
            limit = limit * jnp.where(share > 0, share, 1.0)
        error = jnp.sum(square, axes)
        # The Lagrangian. lambda is state, so it has no gradient of its own; it ascends below.
        weight = jnp.exp(state["log_lambda"])
        loss = self.schedule(ctx.step) * terms.rate + weight * (error - limit)
        # Relative to the limit: `speed` has the same meaning for any tolerance and image size. The mean over the global
        # batch keeps lambda equal on all devices.
        violation = collectives.pmean(jax.lax.stop_gradient(jnp.mean(error)), ctx.axis_name) / limit - 1.0
        metrics = {"lambda": weight, "violation": violation}
        if not ctx.train:
            return loss, metrics, state
        mean = self.decay * state["violation"] + (1.0 - self.decay) * violation
        total = self.decay * state["weight"] + (1.0 - self.decay)
        # Ascent on log lambda. The cut at +-1 bounds the speed while the first reconstructions are far off.
        bound = math.log(self.max_lambda)
        # An average that starts at 0 is divided by the weight it has gathered, or lambda would not move at first.
        log_lambda = state["log_lambda"] + self.speed * jnp.clip(mean / total, -1.0, 1.0)
        return loss, metrics, {"log_lambda": jnp.clip(log_lambda, -bound, bound), "violation": mean, "weight": total}
