"""Critics on codes: density-ratio classifiers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from vae_jax.distributions import dense
from vae_jax.model import Context, Metrics
from vae_jax.objectives.base import Objective
from vae_jax.options.needs import Need
from vae_jax.options.ranges import EACH_AT_LEAST_ONE


@dataclass(frozen=True)
class Adversarial(Objective):
    """Base of the objectives with a critic on z, in a parameter group of its own (`critic_optimizer`).

    `loss` is the objective without the critic. What the encoder pays is `critic_cost`; what the critic learns is to
    tell the two samples of `critic_pair` apart. `models.wrappers` adds both, and stops the gradients between them.
    """

    hidden: Annotated[tuple[int, ...], EACH_AT_LEAST_ONE] = (512,) * 4
    """Widths of the critic's hidden layers (leaky ReLU). It trains with `critic_optimizer`."""

    couples: ClassVar[bool] = True
    path: ClassVar[bool] = True
    noisy: ClassVar[bool] = True

    def needs(self) -> tuple[Need, ...]:
        # Density ratios from a critic are combined with log p(x|z): it must be a density.
        return (*super().needs(), Need("likelihood", ("normalized",)))

    def critic_init(self, key: jax.Array, code_dim: int) -> dict[str, Any]:
        """Returns the parameters of a dense net from a code [D] to one logit."""
        # One output, a logit: the density ratio is read off it without passing through a sigmoid, which saturates.
        return dense.init(key, (code_dim, *self.hidden, 1))

    def critic_cost(self, critic: Any, z: jax.Array, ctx: Context) -> tuple[jax.Array, Metrics]:
        """Returns (what the encoder pays for codes z [B, D] under a fixed critic, [B] in nats, metrics)."""
        raise TypeError(f"{type(self).__name__} must define critic_cost")

    def critic_pair(
        self, key: jax.Array, z: jax.Array, sample_prior: Callable[[jax.Array, int], jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the two samples that the critic tells apart: (those of label 1, those of label 0), [N, D] each.

        Args:
          key: of the step, the same on every device.
          z: codes of the global batch [B, D].
          sample_prior: (key, n) -> z [n, D] ~ p(z).
        """
        raise TypeError(f"{type(self).__name__} must define critic_pair")


def logit(params: Any, z: jax.Array) -> jax.Array:
    """Returns the critic's logit [B] of codes [B, D]: ln p_1(z) / p_0(z) where it is optimal."""
    return dense.apply(params, z, activation=partial(jax.nn.leaky_relu, negative_slope=0.2))[:, 0]


def cross_entropy(params: Any, ones: jax.Array, zeros: jax.Array) -> tuple[jax.Array, Metrics]:
    """Returns (1/2 (E_ones[-ln D] + E_zeros[-ln(1 - D)]), `critic_loss` and `critic_accuracy`).

    The loss is ln 2 for a critic that knows nothing.

    Args:
      params: of the critic.
      ones: codes [N, D] of label 1.
      zeros: codes [M, D] of label 0.

    Example:
      >>> nothing = {"layer0": {"w": jnp.zeros((1, 1)), "b": jnp.zeros(1)}}
      >>> round(float(cross_entropy(nothing, jnp.ones((2, 1)), jnp.zeros((2, 1)))[0]), 4)  # ln 2
      0.6931
    """
    high, low = logit(params, ones), logit(params, zeros)
    # softplus(-l) is -ln sigmoid(l), finite for any logit. Each label has weight one half, whatever N and M.
    loss = 0.5 * (jnp.mean(jax.nn.softplus(-high)) + jnp.mean(jax.nn.softplus(low)))
    right = 0.5 * (jnp.mean(jnp.asarray(high > 0, jnp.float32)) + jnp.mean(jnp.asarray(low < 0, jnp.float32)))
    return loss, {"critic_loss": loss, "critic_accuracy": right}
