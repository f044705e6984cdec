"""Regularized autoencoders: a deterministic code, kept near 0, and a smooth decoder in place of noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import jax
import jax.numpy as jnp

from vae_jax import prng
from vae_jax.model import Context, Metrics
from vae_jax.objectives.base import Objective, Terms
from vae_jax.options.ranges import NotNegative


@dataclass(frozen=True)
class RaeL2(Objective):
    """RAE-L2: distortion + beta |z|^2 / 2; the decoder's L2 is `--optimizer.weight_decay` (arXiv:1903.12436).

    Example:
      >>> z = jnp.array([[3.0, 4.0]])
      >>> terms = Terms(None, z, None, None, distortion=jnp.array([10.0]), rate=jnp.zeros(1), kl_per_dim=None)
      >>> objective = RaeL2(beta=2.0)
      >>> objective.loss(terms, Context(0, jnp.arange(1), objective.hyper()))[0].tolist()  # 10 + 2 * 25 / 2
      [35.0]
    """

    beta: Annotated[float, NotNegative()] = 1e-2
    """Weight of |z|^2 / 2."""

    path: ClassVar[bool] = True
    deterministic: ClassVar[bool] = True

    def hyper(self) -> dict[str, float]:
        return {"beta": self.beta}

    def loss(self, terms: Terms, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (distortion + s(step) beta |z|^2 / 2, metrics): [B] in nats (arXiv:1903.12436, eq. 5)."""
        beta = ctx.hyper["beta"] * self.schedule(ctx.step)
        # -ln N(z; 0, I) up to a constant, in nats. Without it the code could grow to escape any penalty on the
        # decoder's slope.
        energy = 0.5 * jnp.sum(jnp.square(terms.z), -1)
        return terms.distortion + beta * energy, {"beta": beta, "code_energy": jnp.mean(energy)}


@dataclass(frozen=True)
class RaeGP(RaeL2):
    """RAE-GP: distortion + beta |z|^2 / 2 + lambda |dx/dz|^2 / 2, the decoder's Jacobian (arXiv:1903.12436).

    Example:
      >>> from vae_jax.likelihoods import GaussianPixels
      >>> def penalty(slope):
      ...     x, z, key = jnp.zeros((1, 1, 1, 1)), jnp.zeros((1, 1)), jax.random.key(0)
      ...     decode = lambda z: GaussianPixels(slope * z.reshape(x.shape), jnp.zeros(()))
      ...     terms = Terms(x, z, None, None, jnp.zeros(1), jnp.zeros(1), None, key=key, decode=decode)
      ...     return RaeGP().loss(terms, Context(0, jnp.arange(1), RaeGP().hyper()))[1]["jacobian_penalty"]
      >>> round(float(penalty(3.0) / penalty(1.0)), 4)  # the square of the decoder's slope
      9.0
    """

    lam: Annotated[float, NotNegative()] = 1e-2
    """lambda, weight of the squared Jacobian of the decoded mean."""

    noisy: ClassVar[bool] = True

    def hyper(self) -> dict[str, float]:
        return {**super().hyper(), "lam": self.lam}

    def loss(self, terms: Terms, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (distortion + s(step) (beta |z|^2 + lam |J|_F^2) / 2, metrics): [B] in nats.

        |J|_F^2 = E |v^T J|^2 over v ~ N(0, I), from one v per example (Hutchinson 1990): one more pass through the
        decoder, and not one per latent dimension.
        """
        decode = terms.decode
        assert decode is not None
        loss, metrics = super().loss(terms, ctx)
        # One probe v per example, in data space. E[v v^T] = I makes |v^T J|^2 an unbiased estimate of |J|_F^2.
        keys = prng.example_keys(prng.site_key(terms.key, "probe"), ctx.index)
        # v^T J for the whole batch by one backward pass: rows of the batch do not mix in the decoder. The loss is then
        # differentiated through this pass, a second time.
        _, pull = jax.vjp(lambda z: decode(z).mean(), terms.z)
        penalty = 0.5 * jnp.sum(jnp.square(pull(prng.normal(keys, terms.x.shape[1:]))[0]), -1)
        return loss + self.schedule(ctx.step) * ctx.hyper["lam"] * penalty, {
            **metrics,
            "jacobian_penalty": jnp.mean(penalty),
        }
