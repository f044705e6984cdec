"""beta-TCVAE: the rate taken apart into mutual information, total correlation and dimension-wise KL."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from vae_jax import collectives
from vae_jax.distributions.separable import log_densities
from vae_jax.errors import InputError, option
from vae_jax.model import Context, Metrics
from vae_jax.objectives.base import Objective, Terms
from vae_jax.options.ranges import NotNegative
from vae_jax.spaces import Real, Space
from vae_jax.spec import DataSpec


def stratified_log_weights(rows: jax.Array, batch: int, examples: int) -> jax.Array:
    """Returns the log weights [b, B] that make sum_m w_im q(z|x_m) an unbiased estimate of q(z), z ~ q(z|x_i).

    With M = B - 1, N examples: 1/N for x_i itself, (N - M) / (N M) for one other, 1/M for the rest; rows sum to one
    (arXiv:1802.04942, app. C.2). The others are drawn without replacement, so that which of them is the one does not
    matter: it is the next of the batch. Where the batch is the whole data set all weights are 1/N, and q(z) is exact.

    Args:
      rows: place i of each example in the global batch, [b].
      batch: size of the global batch, B.
      examples: size of the training set, N.
    """
    # The batch is the whole data set: q(z) is an even mixture over it.
    if examples <= batch or batch == 1:
        return jnp.full((len(rows), batch), -math.log(batch))
    others = batch - 1
    # Rows are local examples, columns the global batch.
    column, row = jnp.arange(batch)[None], rows[:, None]
    corrected = jnp.where(
        column == (row + 1) % batch, math.log((examples - others) / (examples * others)), -math.log(others)
    )
    return jnp.where(column == row, -math.log(examples), corrected)


@dataclass(frozen=True)
class BetaTC(Objective):
    """beta-TCVAE: alpha * MI + beta * TC + gamma * dimension-wise KL in place of the rate (arXiv:1802.04942).

    Example:
      >>> from vae_jax import spec
      >>> from vae_jax.distributions import DiagGaussian
      >>> z = jnp.array([[9.0, 9.0], [-9.0, -9.0]])  # two codes far apart: MI = TC = ln 2
      >>> q = DiagGaussian(z, jnp.zeros((2, 2)))
      >>> terms = Terms(None, z, q, None, distortion=jnp.full(2, 10.0), rate=jnp.full(2, 3.0), kl_per_dim=None)
      >>> terms = terms._replace(spec=spec.images(1, 1, 1, examples=2))
      >>> ctx = Context(0, jnp.arange(2), BetaTC(beta=6.0).hyper())
      >>> round(float(BetaTC(beta=6.0).loss(terms, ctx)[0][0]), 4)  # 10 + 3 + (6 - 1) ln 2
      16.4657
    """

    beta: Annotated[float, NotNegative()] = 6.0
    """Weight of the total correlation KL(q(z) || prod_j q(z_j))."""
    alpha: Annotated[float, NotNegative()] = 1.0
    """Weight of the mutual information I(x; z)."""
    gamma: Annotated[float, NotNegative()] = 1.0
    """Weight of the dimension-wise KL sum_j KL(q(z_j) || p(z_j))."""
    estimator: Literal["mss", "mws"] = "mss"
    """How q(z) is estimated from a batch: stratified sampling, which is unbiased, or weighted sampling, which is low
    by ln N in each log density even where the batch is the whole data set (the default of the paper's code)."""

    couples: ClassVar[bool] = True
    path: ClassVar[bool] = True
    separable: ClassVar[bool] = True
    by_dimension: ClassVar[bool] = True
    spaces: ClassVar[tuple[type[Space], ...]] = (Real,)

    def check(self, spec: DataSpec) -> None:
        # N enters the weights: a wrong one biases log q(z), and with it the split between MI and TC.
        if not spec.examples:
            raise InputError(
                "model.objective: beta-tc weighs a batch by the number of training examples, which is not known here; "
                f"choose {option('model.objective', 'factor')}, or give build a model with spec.images(..., examples=N)"
            )

    def hyper(self) -> dict[str, float]:
        return {"alpha": self.alpha, "beta": self.beta, "gamma": self.gamma}

    def loss(self, terms: Terms, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (distortion + s(step) (alpha MI + beta TC + gamma dim_kl), metrics): [B] in nats.

        MI = log q(z|x) - log q(z), TC = log q(z) - sum_j log q(z_j) of the example's sample z; dim_kl is what is left
        of the rate, so that alpha = beta = gamma = 1 is the ELBO (arXiv:1802.04942, eq. 2).
        """
        # Nats, [B]. One sample per example: single values may be negative, their means estimate KL divergences.
        mi, tc = self.information(terms, ctx)
        # The rate is in closed form where there is one; the remainder absorbs the error of the two estimates.
        dim_kl = terms.rate - mi - tc
        scale, h = self.schedule(ctx.step), ctx.hyper
        cost = h["alpha"] * mi + h["beta"] * tc + h["gamma"] * dim_kl
        metrics = {"mi": jnp.mean(mi), "tc": jnp.mean(tc), "dim_kl": jnp.mean(dim_kl), "beta": scale * h["beta"]}
        return terms.distortion + scale * cost, metrics

    def information(self, terms: Terms, ctx: Context) -> tuple[jax.Array, jax.Array]:
        """Returns (MI, TC) of each example's sample in nats, [B], estimated from the global batch."""
        # 1. Every local code z_i under every posterior q(z|x_m) of the global batch, dimension by dimension.
        q = jax.tree.map(lambda leaf: collectives.all_gather(leaf, ctx.axis_name), terms.posterior)
        densities = log_densities(q, terms.z)  # [D, b, B]
        b, batch = densities.shape[1:]
        assert terms.spec is not None
        examples = terms.spec.examples
        # 2. Log weights [b, B] that turn a sum over the batch into an estimate of q(z).
        rows = collectives.example_index(b, ctx.axis_name)
        if self.estimator == "mss":
            log_w = stratified_log_weights(rows, batch, examples)
        else:
            log_w = jnp.full((b, batch), -math.log(examples) - math.log(batch))
        # 3. log q(z|x_i), log q(z) and sum_j log q(z_j), all at z_i. The product over dimensions is inside the sum over
        #    examples for q(z), outside for the marginals: the order of the two reductions is the whole difference.
        log_joint = jnp.sum(densities, 0)
        log_own = terms.posterior.log_prob(terms.z)
        log_q = logsumexp(log_joint + log_w, -1)
        log_marginals = jnp.sum(logsumexp(densities + log_w[None], -1), 0)
        return log_own - log_q, log_q - log_marginals
