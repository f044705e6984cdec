"""Adversarial losses: a second player with parameters of its own, trained in the same backward pass as the model.

  L(theta, phi) = L_model(theta) + mean cost(theta; sg(phi)) + L_adversary(phi; sg(theta)),

with sg for stop_gradient. The wrapper stops the gradients: an adversary's loss teaches the model nothing, and no
term of the model reaches an adversary. Each group has its own optimizer branch: its own clip, decay and schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vae_jax import prng
from vae_jax.model import Aux, Batch, Context, Metrics, Model, Params, State, batch_mean


class Seen(NamedTuple):
    """What an adversary sees of one step.

    Attributes:
      params: of the model, stopped: gradients reach the model through `outputs` alone.
      state: of the model, as it was before the step.
      outputs: `Aux.outputs` of the model's loss (`z`, `likelihood`); stopped in the adversary's own loss.
      key: of the step and this adversary alone.
      batch: the local batch.
      ctx: of the step.
    """

    params: Params
    state: State
    outputs: Mapping[str, Any]
    key: jax.Array
    batch: Batch
    ctx: Context


class Adversary(NamedTuple):
    """A second player: its parameters phi, what the model pays, and what phi minimizes.

    Attributes:
      group: name of its parameter group.
      init: `(key, batch) -> phi`; the key is this adversary's alone.
      cost: `(phi, seen) -> ([B], metrics)`, the model's term of each example; phi is stopped.
      loss: `(phi, seen) -> (scalar, metrics)`, the adversary's own loss; all of `seen` is stopped. On a mapped axis it
        must be that of the global batch, or a mean over equal shards.
      site: name of its key of each step; None takes the name of the group.
    """

    group: str
    init: Callable[[jax.Array, Batch], Any]
    cost: Callable[[Any, Seen], tuple[jax.Array, Metrics]]
    loss: Callable[[Any, Seen], tuple[jax.Array, Metrics]]
    site: str | None = None


def with_adversary(model: Model, adversary: Adversary) -> Model:
    """Returns the model with the adversary's parameter group and both terms in its loss.

    The value of the loss is that of the model, mean cost included; the adversary's own loss adds its gradient to phi
    and nothing to the value, so that the logged loss stays comparable. Wrappers nest: each adds a group.
    """
    training = model.training._replace(adversaries=(*model.training.adversaries, adversary.group))
    return model._replace(
        init=partial(_init, model, adversary), loss=partial(_loss, model, adversary), training=training
    )


def _init(model: Model, adversary: Adversary, key: jax.Array, batch: Batch) -> tuple[Params, State]:
    """Returns the model's parameters with the adversary's beside them, and the model's state."""
    params, state = model.init(key, batch)
    if adversary.group in params:
        # Two players in one group would be trained against themselves.
        raise ValueError(f"the model has a parameter group {adversary.group!r} already: give the adversary another")
    # A key by the name of the group: two adversaries of one architecture would start with equal weights.
    return {**params, adversary.group: adversary.init(prng.site_key(key, adversary.group), batch)}, state


def _loss(
    model: Model, adversary: Adversary, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context
) -> tuple[jax.Array, Aux]:
    """Returns the loss of both players and what is logged, as `Model.loss` does."""
    phi, frozen = params[adversary.group], jax.lax.stop_gradient(params)
    # 1. The model's own loss, to which phi is a constant.
    value, aux = model.loss({**params, adversary.group: frozen[adversary.group]}, state, key, batch, ctx)
    # 2. What the model pays, [B] in nats. Gradients reach it through `outputs` alone: with live parameters an outer
    #    adversary's term could move an inner one.
    seen = Seen(frozen, state, aux.outputs, prng.site_key(key, adversary.site or adversary.group), batch, ctx)
    cost, paid = adversary.cost(frozen[adversary.group], seen)
    value = value + batch_mean(cost, jax.tree.leaves(dict(batch))[0].shape[0], f"the cost of {adversary.group!r}")
    # 3. What phi minimizes, on stopped outputs. A gradient from here would teach the model to help it.
    loss, learned = adversary.loss(phi, seen._replace(outputs=jax.lax.stop_gradient(dict(aux.outputs))))
    # 4. One scalar for one backward pass: the adversary's loss is there by its gradient alone.
    metrics = _joined(adversary.group, aux.metrics, paid, learned) | {"loss": value}
    return value + _gradient_of(loss), Aux(aux.state, metrics, aux.outputs)


def _joined(group: str, of_model: Metrics, *added: Metrics) -> Metrics:
    """Returns the metrics of the model and those that an adversary adds.

    Raises:
      ValueError: a name is taken. The log would show one of the two values in place of both.
    """
    joined = dict(of_model)
    for metrics in added:
        # `loss` is that of the model with every cost: the wrapper writes it.
        if taken := sorted(metrics.keys() & {*joined, "loss"}):
            raise ValueError(f"the adversary of {group!r} gives the metric {taken[0]!r}, which is taken: rename it")
        joined |= metrics
    return joined


@jax.custom_jvp
def _gradient_of(loss: jax.Array) -> jax.Array:
    """Returns exact zeros that have the gradient of `loss`.

    `loss - stop_gradient(loss)` is the same for finite losses; of an infinite one it is NaN, in the model's own value.
    """
    return jnp.zeros_like(loss)


@_gradient_of.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return jnp.zeros_like(primals[0]), tangents[0]
