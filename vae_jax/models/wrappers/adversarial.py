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
from vae_jax.errors import InputError
from vae_jax.model import Aux, Batch, Context, Metrics, Model, Params, State
from vae_jax.models.per_example import batch_mean


class Seen(NamedTuple):
    """What an adversary sees of one step.

    Attributes:
      params: of the model, stopped: gradients reach the model through `outputs` alone.
      state: of the model, as it was before the step.
      outputs: `Aux.outputs` of the model's loss (`z`, `likelihood`), whose docstring has the shapes; stopped in the
        adversary's own loss. One that the model does not give raises InputError when it is read.
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
    outputs = _Outputs(adversary.group, aux.outputs)
    seen = Seen(frozen, state, outputs, prng.site_key(key, adversary.site or adversary.group), batch, ctx)
    cost, paid = adversary.cost(frozen[adversary.group], seen)
    value = value + batch_mean(cost, len(ctx.index), f"the cost of {adversary.group!r}")
    # 3. What phi minimizes, on stopped outputs. A gradient from here would teach the model to help it.
    stopped = _Outputs(adversary.group, jax.lax.stop_gradient(dict(aux.outputs)))
    loss, learned = adversary.loss(phi, seen._replace(outputs=stopped))
    # 4. One scalar for one backward pass: the adversary's loss is there by its gradient alone.
    metrics = _joined(adversary.group, aux.metrics, paid, learned) | {"loss": value}
    return value + _gradient_of(loss), Aux(aux.state, metrics, aux.outputs)


class _Outputs(dict[str, Any]):
    """The outputs of a model's loss, for the adversary of a group; one that is missing is refused by name."""

    def __init__(self, group: str, outputs: Mapping[str, Any]) -> None:
        super().__init__(outputs)
        self.group = group

    def __missing__(self, name: str) -> Any:
        given = f"it gives {' and '.join(sorted(self))}" if self else "it gives none"
        raise InputError(
            f"model: its loss does not give the output {name!r}, which the adversary of {self.group!r} reads; {given}: "
            f"use another model, or add {name!r} to Aux.outputs of this one"
        )


# A pytree as any dict, so that an adversary may map over all that it sees.
jax.tree_util.register_pytree_node(
    _Outputs,
    lambda outputs: (tuple(outputs.values()), (outputs.group, tuple(outputs))),
    lambda static, leaves: _Outputs(static[0], dict(zip(static[1], leaves, strict=True))),
)


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
