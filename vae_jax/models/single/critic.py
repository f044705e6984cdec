"""The critic on z of an adversarial objective, as the adversary of a single-latent VAE."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax

from vae_jax import collectives, prng
from vae_jax.model import Batch, Metrics
from vae_jax.models.single import parts as vae
from vae_jax.models.single.parts import Parts
from vae_jax.models.wrappers import Adversary, Seen
from vae_jax.objectives import Adversarial
from vae_jax.objectives.critic import cross_entropy


def critic(parts: Parts, objective: Adversarial) -> Adversary:
    """Returns the adversary, whose parameter group is `critic`."""
    return Adversary(
        "critic", partial(init, parts, objective), partial(cost, objective), partial(loss, parts, objective)
    )


def init(parts: Parts, objective: Adversarial, key: jax.Array, batch: Batch) -> Any:
    """Returns the critic's parameters, for latents as vectors [B, n].

    Args:
      parts: of the model.
      objective: the model's objective.
      key: of the model's `init`; the critic has a site of its own.
      batch: not read.

    Returns:
      as of `Adversarial.critic_init`.
    """
    del batch
    return objective.critic_init(prng.site_key(key, "critic"), parts.space.size)


def cost(objective: Adversarial, phi: Any, seen: Seen) -> tuple[jax.Array, Metrics]:
    """Returns what the encoder pays under a fixed critic, [B] in nats."""
    return objective.critic_cost(phi, seen.outputs["z"], seen.ctx)


def loss(parts: Parts, objective: Adversarial, phi: Any, seen: Seen) -> tuple[jax.Array, Metrics]:
    """Returns the cross-entropy by which the critic tells the objective's two samples apart, a scalar in nats.

    Args:
      parts: of the model.
      objective: the model's objective.
      phi: the critic's parameters.
      seen: of the step; its outputs `z` are the local codes [b, n].

    Returns:
      the same loss on every device, and its metrics.
    """
    c, ctx = parts.config, seen.ctx
    key = prng.site_key(seen.key, "objective")
    # Every device sees the codes of the global batch, and draws with the same key: the critic gets one gradient.
    z = collectives.all_gather(seen.outputs["z"], ctx.axis_name)

    def sample_prior(key: jax.Array, n: int) -> jax.Array:
        features = c.condition.features(seen.batch, parts.spec)
        links = vae.links(parts, seen.params, ctx.step, features, seen.batch["x"])
        mine, running = vae.own(parts, seen.params, "prior"), seen.state.get("prior", {})
        return c.prior.sample(mine, running, key, n, vae.everywhere(links, ctx))

    return cross_entropy(phi, *objective.critic_pair(key, z, sample_prior))
