"""LARS: a Gaussian reshaped by learned accept/reject sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from vae_jax import prng
from vae_jax.distributions import dense
from vae_jax.distributions.gaussian import LOG_2PI
from vae_jax.model import Context
from vae_jax.options.ranges import EACH_AT_LEAST_ONE, AtLeast, Share
from vae_jax.priors.base import Links, Prior


class ResampledNormal(NamedTuple):
    """The density of a draw from N(0, I) that is accepted with probability a(z), the last of T tries in any case.

    p(z) = N(z; 0, I) [ a(z) (1 - r) / Z + r ],  r = (1 - Z)^(T - 1),  Z = E_N[a(z)]   (arXiv:1810.11428, eq. 9).
    """

    params: Any
    normalizer: jax.Array
    truncation: int | jax.Array

    def log_accept(self, z: jax.Array) -> jax.Array:
        """Returns log a(z) [B], below 0."""
        return jax.nn.log_sigmoid(dense.apply(self.params, z)[:, 0])

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Returns log p(z) in nats [B]."""
        # [B]. log N(z; 0, I), the proposal.
        base = -0.5 * jnp.sum(jnp.square(z) + LOG_2PI, -1)
        # Z in (0, 1) strictly: an acceptance of nothing or of everything would put log 0 below.
        total = jnp.clip(self.normalizer, 1e-6, 1.0 - 1e-6)
        # ln r: the probability that all tries but the last fail. ln((1 - r) / Z) by expm1, as r is near 1 for small Z.
        log_last = (self.truncation - 1.0) * jnp.log1p(-total)
        log_earlier = jnp.log(-jnp.expm1(log_last)) - jnp.log(total)
        # Accepted in one of the first T - 1 tries, or taken as the last.
        return base + jnp.logaddexp(self.log_accept(z) + log_earlier, log_last)


@dataclass(frozen=True)
class Resampled(Prior):
    """LARS: N(0, I) filtered by a trained acceptance a(z), at most T tries (arXiv:1810.11428).

    Z = E[a] is estimated from draws of N(0, I) and averaged over steps, its gradient being that of the newest draws
    (the paper's estimate also uses the batch's posterior samples). Evaluation takes Z from fixed draws instead, so that
    it belongs to the weights that are evaluated, moving averages included.
    """

    truncation: Annotated[int, AtLeast(2)] = 100
    """Tries before a draw is taken whatever a(z) is, T; 2 or more."""
    hidden: Annotated[tuple[int, ...], EACH_AT_LEAST_ONE] = (100, 100)
    """Widths of the hidden layers of the acceptance net."""
    samples: Annotated[int, AtLeast(1)] = 1024
    """Draws per step that estimate the normalizer."""
    decay: Annotated[float, Share()] = 0.9
    """Decay of the normalizer's moving average."""
    evaluation_samples: Annotated[int, AtLeast(1)] = 16384
    """Fixed draws that estimate the normalizer outside training."""

    def init(self, key: jax.Array, links: Links) -> dict[str, Any]:
        return {"net": dense.init(key, (links.code_dim, *self.hidden, 1))}

    def init_state(self, links: Links) -> dict[str, Any]:
        """Returns the weighted sum of the past estimates of Z, and the sum of their weights."""
        del links
        # The average starts at 0; its weight debiases it.
        return {"normaliser": jnp.zeros(()), "weight": jnp.zeros(())}

    def estimate(self, params: Any, key: jax.Array, samples: int, code_dim: int) -> jax.Array:
        """Returns the mean of a(z) over draws of N(0, I).

        Args:
          params: as of `init`.
          key: of the draws, consumed.
          samples: number of draws.
          code_dim: length of z, D.

        Returns:
          the estimate of the normalizer Z, a scalar in (0, 1).
        """
        # Not keyed per example: one Z for the whole batch.
        z = jax.random.normal(key, (samples, code_dim))
        return jnp.mean(jax.nn.sigmoid(dense.apply(params["net"], z)[:, 0]))

    def distribution(self, params, state, links: Links) -> ResampledNormal:
        del state
        fixed = jax.random.key(0)  # the same draws always: evaluation has no key for the prior, and needs no other
        total = self.estimate(params, fixed, self.evaluation_samples, links.code_dim)
        return ResampledNormal(params["net"], total, self.truncation)

    def fit(self, params, state, key, links: Links, ctx: Context) -> tuple[ResampledNormal, Any]:
        """Returns (p(z) with Z averaged over steps, the new average). The key is the same on all devices, so Z is."""
        del ctx
        # One step's estimate of Z is too noisy for log Z; the average over steps is smooth, but has no gradient.
        now = self.estimate(params, key, self.samples, links.code_dim)
        value = jax.lax.stop_gradient(now)
        new = {
            "normaliser": self.decay * state["normaliser"] + (1.0 - self.decay) * value,
            "weight": self.decay * state["weight"] + (1.0 - self.decay),
        }
        # The bracket has the value 0 and the whole gradient of the newest draws, not a share of 1 - decay.
        total = new["normaliser"] / new["weight"] + (now - value)
        return ResampledNormal(params["net"], total, self.truncation), new

    def sample(self, params, state, key, n: int, links: Links, temperature: float = 1.0) -> jax.Array:
        """Returns z ~ p(z), [n, D], by rejection; `temperature` scales the proposals. No gradient reaches the net."""
        del state
        # The loop's length depends on the draws, which reverse mode cannot follow, and acceptance has no gradient.
        net = jax.lax.stop_gradient(params["net"])
        shape = (n, links.code_dim)

        def propose(t: jax.Array) -> jax.Array:
            # Keys by the number of the try: a draw does not depend on how long the others take.
            return temperature * jax.random.normal(jax.random.fold_in(prng.site_key(key, "propose"), t), shape)

        def busy(carry: tuple) -> jax.Array:
            t, _, done = carry
            return (t < self.truncation) & ~jnp.all(done)

        def attempt(carry: tuple) -> tuple:
            t, z, done = carry
            new = propose(t)
            u = jax.random.uniform(jax.random.fold_in(prng.site_key(key, "accept"), t), (n,))
            # The last try is accepted in any case: this is what r in the density accounts for.
            taken = (u < jax.nn.sigmoid(dense.apply(net, new)[:, 0])) | (t == self.truncation - 1)
            return t + 1, jnp.where((taken & ~done)[:, None], new, z), done | taken

        # All n draws run in step: a row that has accepted keeps its z until the last one is done.
        start = (jnp.zeros((), jnp.int32), jnp.zeros(shape), jnp.zeros(n, bool))
        return jax.lax.stop_gradient(jax.lax.while_loop(busy, attempt, start)[1])
