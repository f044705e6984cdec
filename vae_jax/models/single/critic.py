"""The critic on z of an adversarial objective, as the adversary of a single-latent VAE."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax

from vae_jax import collectives
from vae_jax.errors import InputError
from vae_jax.model import Batch, Metrics
from vae_jax.models.single import parts as vae
from vae_jax.models.single.parts import Parts
from vae_jax.models.wrappers import Adversary, Seen
from vae_jax.objectives import Adversarial
from vae_jax.objectives.critic import cross_entropy


def critic(parts: Parts, objective: Adversarial) -> Adversary:
    """Returns the adversary, whose parameter group is `critic`."""
    return Adversary(
        "critic",
        partial(init, parts, objective),
        partial(cost, objective),
        partial(loss, parts, objective),
        # The critic's pair is noise of the objective, as that of its other terms: `Terms.key` has this site.
        site="objective",
    )


def init(parts: Parts, objective: Adversarial, key: jax.Array, batch: Batch) -> Any:
    """Returns the critic's parameters, for latents as vectors [B, n].

    Args:
      parts: of the model.
      objective: the model's objective.
      key: of the critic alone.
      batch: not read.

    Returns:
      as of `Adversarial.critic_init`.
    """
    del batch
    params = objective.critic_init(key, parts.space.size)
    if not jax.tree.leaves(params):
        raise InputError(f"model.objective: {type(objective).__name__}.critic_init gives no parameters; return some")
    return params


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
    # Every device sees the codes of the global batch, and draws with the same key: the critic gets one gradient.
    z = collectives.all_gather(seen.outputs["z"], ctx.axis_name)
    links = vae.links(parts, seen.params, ctx.step, c.condition.features(seen.batch, parts.spec), seen.batch["x"])
    sample_prior = partial(vae.sample_prior, parts, seen.params, seen.state, links, ctx)
    pair = objective.critic_pair(seen.key, z, sample_prior)
    # A leading axis or whole numbers would train a critic of something else, in silence.
    if not all(x.ndim == 2 and x.shape[1] == z.shape[1] and len(x) and x.dtype == z.dtype for x in pair):
        found = " and ".join(f"{x.dtype} {list(x.shape)}" for x in pair)
        raise InputError(
            f"model.objective: {type(objective).__name__}.critic_pair gives {found}; return two samples of codes, "
            f"{z.dtype} [N, {z.shape[1]}]"
        )
    ones, zeros = pair
    return cross_entropy(phi, ones, zeros)
