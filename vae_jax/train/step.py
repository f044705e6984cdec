"""The one train step. It knows no model, no objective, no data set and no device layout."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vae_jax import collectives, prng
from vae_jax.model import Aux, Batch, Context, Metrics, Model
from vae_jax.train.state import TrainState

TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_train_step(
    model: Model,
    tx: optax.GradientTransformation,
    *,
    ema_decay: float | None = None,
    accumulate: int = 1,
    axis_name: str | None = None,
) -> TrainStep:
    """Returns `train_step(state, batch) -> (state, metrics)`, pure.

    Args:
      model: the model.
      tx: optimizer over `{group: params}`.
      ema_decay: decay of the moving average of params; None keeps none.
      accumulate: number of microbatches whose gradients are averaged; must divide the (local) batch. Noise is keyed
        by the global example index, so the result is that of one large batch to float tolerance, unless the loss
        couples examples (`gaussian-optimal`: each microbatch fits its own variance). Each microbatch starts from the
        step's model state and the new ones are averaged, as over devices: running means move once per step.
      axis_name: mapped axis under `pmap`/`shard_map`, where batch is the local shard; None in the global view.

    Returns:
      the step; metrics are means over the global batch, with `grad_norm` added. It raises ValueError when it is
      traced with a state that keeps a moving average and no `ema_decay`, or the other way round.
    """

    def gradients(state: TrainState, key: jax.Array, batch: Batch, index: jax.Array):
        ctx = Context(state.step, index, state.hyper, True, axis_name)
        args = (state.params, state.model_state, key, batch, ctx)
        (_, aux), grads = jax.value_and_grad(model.loss, has_aux=True)(*args)
        # What wrappers read of the loss is not carried on: it is as large as the batch. Neither is what does not move.
        moving = {name: value for name, value in aux.state.items() if name not in model.training.frozen}
        return grads, Aux(moving, aux.metrics)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        if (ema_decay is None) != (state.ema is None):
            # An average that is never updated would be evaluated in place of the params.
            raise ValueError(f"ema_decay is {ema_decay}, but the state was made with ema={state.ema is not None}")
        # 1. The key of the step, and the index of each example in the global batch, which key all noise.
        key = prng.step_key(state.key, state.step)
        size = jax.tree.leaves(batch)[0].shape[0]
        index = collectives.example_index(size, axis_name)
        # 2. Gradients, metrics and new model state of the local batch.
        if accumulate == 1:
            grads, aux = gradients(state, key, batch, index)
        else:
            grads, aux = _accumulated(gradients, state, key, batch, index, accumulate)
        # 3. Means over the devices of a mapped axis; in the global view they are global already.
        grads, metrics, model_state = collectives.pmean((grads, aux.metrics, aux.state), axis_name)
        model_state = {**model_state, **{name: state.model_state[name] for name in model.training.frozen}}
        # 4. The update, and the average of the params that it makes.
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema_decay is not None and ema is not None:
            # optax expects the weight of the new params, which is 1 - decay.
            ema = optax.incremental_update(params, ema, 1.0 - ema_decay)
        new = replace(state, step=state.step + 1, params=params, model_state=model_state, opt_state=opt_state, ema=ema)
        return new, {**metrics, "grad_norm": optax.global_norm(grads)}

    return train_step


def _accumulated(gradients: Callable, state: TrainState, key, batch: Batch, index: jax.Array, count: int):
    """Returns the mean (grads, Aux) over `count` microbatches, scanned so that only one is in memory."""

    # Strided split: [B] -> [B / count, count], so that every device keeps its part of each microbatch.
    def split(x: jax.Array) -> jax.Array:
        return jnp.swapaxes(x.reshape(x.shape[0] // count, count, *x.shape[1:]), 0, 1)

    def body(total: Any, micro: tuple) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradients(state, key, *micro)), None

    # [count, B / count, ...]; the indices are split in the same way, so that an example keeps its noise.
    micros = (jax.tree.map(split, dict(batch)), split(index))
    # The sum starts at zeros, in the shapes of what one microbatch gives.
    shapes = jax.eval_shape(gradients, state, key, *jax.tree.map(lambda x: x[0], micros))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    total, _ = jax.lax.scan(body, zeros, micros)
    return jax.tree.map(lambda x: x / count, total)


def make_multi_step(
    train_step: TrainStep, batch_fn: Callable[[Batch, jax.Array, jax.Array], Batch]
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, Metrics, jax.Array]]:
    """Returns `run(state, arrays, n) -> (state, mean metrics, finite)`: n steps in one dispatch.

    The batch of each step is made on the device by `batch_fn(arrays, key, step)`. n is traced: one program serves
    every chunk length, so where checkpoints fall cannot change a single bit of the result. The loop ends early, at
    the first step whose loss, metrics or gradient norm is not finite: the state is then worthless but for its step.

    Returns:
      run; its metrics are means over the steps made, or those of the bad step alone when `finite` is False.
    """

    # Inlined, it is traced once: the loop's body below finds the trace that the shapes of the metrics were read from.
    @functools.partial(jax.jit, inline=True)
    def step(state: TrainState, arrays: Batch) -> tuple[TrainState, Metrics]:
        # Data keys hang off the run's base key, not off the step's: the data path may need the epoch, not the step.
        batch = batch_fn(arrays, prng.site_key(state.key, "data"), state.step)
        return train_step(state, batch)

    def run(state: TrainState, arrays: Batch, n: jax.Array) -> tuple[TrainState, Metrics, jax.Array]:
        shapes = jax.eval_shape(step, state, arrays)[1]
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        # The carry is (state, steps made, sum of the metrics, whether the last step was finite).
        def cond(carry: tuple) -> jax.Array:
            return (carry[1] < n) & carry[3]

        def body(carry: tuple) -> tuple:
            state, i, total, _ = carry
            new, metrics = step(state, arrays)
            finite = all_finite(metrics)
            # A bad step replaces the sum: its own metrics say what became NaN.
            total = jax.tree.map(lambda t, m: jnp.where(finite, t + m, m), total, metrics)
            return new, i + 1, total, finite

        state, count, total, finite = jax.lax.while_loop(
            cond, body, (state, jnp.zeros((), jnp.int32), zeros, jnp.asarray(True))
        )
        # From the sum to the mean; of a bad step only its own metrics are left, which are no sum.
        scale = jnp.where(finite, 1.0 / jnp.maximum(count, 1), 1.0)
        return state, jax.tree.map(lambda t: t * scale, total), finite

    return run


def all_finite(tree: Any) -> jax.Array:
    """Returns a bool scalar: every number in the tree is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))
