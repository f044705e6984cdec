"""Everything that training carries from one step to the next, as one pytree of arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from vae_jax import prng
from vae_jax.model import Batch, Model, Params, State


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """The state of a run: no callables, nothing static, so it can be sharded, vmapped, saved and donated.

    Attributes:
      step: int32 scalar, updates made.
      key: the run's base key. It never advances: step keys are folded from it, so resume needs only `step`.
      params: {group: params}.
      model_state: what the model keeps besides params (running variances, ...).
      opt_state: optax state.
      ema: exponential moving average of params, or None.
      hyper: traced scalars of the objective (`beta`, ...).
    """

    step: jax.Array
    key: jax.Array
    params: Params
    model_state: State
    opt_state: optax.OptState
    ema: Params | None
    hyper: dict[str, jax.Array]

    @property
    def eval_params(self) -> Params:
        """The params to evaluate with: the moving average where one is kept."""
        return self.params if self.ema is None else self.ema


def make_init(model: Model, tx: optax.GradientTransformation, *, ema: bool = False) -> Callable[..., TrainState]:
    """Returns `init(key, batch) -> TrainState`, a pure function (jit it, vmap it over keys, eval_shape it)."""

    def init(key: jax.Array, batch: Batch) -> TrainState:
        # Initialization and training have sites of their own, so that neither changes the noise of the other.
        params, model_state = model.init(prng.site_key(key, "init"), batch)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            key=prng.site_key(key, "train"),
            params=params,
            model_state=model_state,
            opt_state=tx.init(params),
            # A copy: the state is donated, and one buffer may not be donated twice.
            ema=jax.tree.map(jnp.copy, params) if ema else None,
            # Arrays of the state, not constants of the program: members of a population may differ in them.
            hyper={name: jnp.asarray(value, jnp.float32) for name, value in model.training.hyper.items()},
        )

    return init
