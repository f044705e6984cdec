"""Two wrappers around the same pure step: jit over a mesh (the runner's) and pmap (supported, data-parallel)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.sharding import Mesh, NamedSharding

from vae_jax import collectives
from vae_jax.model import Batch, Model
from vae_jax.train import sharding
from vae_jax.train.state import TrainState, make_init
from vae_jax.train.step import TrainStep, make_multi_step, make_train_step


def init_state(
    model: Model,
    tx: optax.GradientTransformation,
    key: jax.Array,
    batch: Batch,
    *,
    mesh: Mesh | None = None,
    ema: bool = False,
) -> TrainState:
    """Returns a fresh state, made in place on the mesh (no device ever holds more than its shard).

    Args:
      model: the model.
      tx: optimizer over `{group: params}`.
      key: the run's key, consumed.
      batch: any batch of the run; only its shapes matter.
      mesh: where the state lives; None for the default device, as any array.
      ema: keep a moving average of params (give `make_train_step` its decay).

    Returns:
      the state at step 0.
    """
    init = _init(model, tx, ema=ema)
    if mesh is None:
        return jax.jit(init)(key, batch)
    # Shapes first, then where they go, then the arrays: the initializers write straight into the shards.
    placed = sharding.infer_sharding(jax.eval_shape(init, key, batch), mesh)
    return jax.jit(init, out_shardings=placed)(key, batch)


def state_shapes(
    model: Model, tx: optax.GradientTransformation, key: jax.Array, batch: Batch, *, mesh: Mesh, ema: bool = False
) -> TrainState:
    """Returns the shapes and shardings of `init_state`'s result, to restore a checkpoint into; nothing is computed.

    Args:
      model: the model.
      tx: optimizer over `{group: params}`.
      key: the run's key; only its type matters.
      batch: any batch of the run; only its shapes matter.
      mesh: where the state is to live.
      ema: whether a moving average of params is kept.

    Returns:
      a `TrainState` of `jax.ShapeDtypeStruct`.
    """
    shapes = jax.eval_shape(_init(model, tx, ema=ema), key, batch)
    placed = sharding.infer_sharding(shapes, mesh)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, placed)


def jit_step(step: TrainStep, state: TrainState, mesh: Mesh) -> TrainStep:
    """Returns the step jitted over the mesh, `(state, batch) -> (state, metrics)`.

    Args:
      step: a step in the global view (`axis_name=None`).
      state: a state as `init_state` places it; its shardings are kept.
      mesh: the mesh. The batch is split over all its devices, so their number must divide the batch.

    Returns:
      the jitted step. The buffers of the state it is called with are donated: do not use that state again.
    """
    # Shardings are fixed on both sides. Left to the compiler, the state could come back placed in another way, and the
    # next call would compile a second program.
    placed = jax.tree.map(lambda x: x.sharding, state)
    # The loss is a mean over a split batch: from that XLA derives the all-reduce of the gradients.
    return jax.jit(
        _within(step, mesh),
        in_shardings=(placed, sharding.batch_sharding(mesh)),
        out_shardings=(placed, sharding.replicated(mesh)),
        donate_argnums=0,
    )


def jit_multi_step(
    step: TrainStep, batch_fn: Callable[[Batch, jax.Array, jax.Array], Batch], state: TrainState, mesh: Mesh
) -> Callable:
    """Returns `run(state, arrays, n)` (see `make_multi_step`) jitted over the mesh.

    Args:
      step: a step in the global view (`axis_name=None`).
      batch_fn: `(arrays, key, step) -> batch`; its batch is split over all devices of the mesh.
      state: a state as `init_state` places it; its shardings are kept.
      mesh: the mesh; `arrays` are on every device.

    Returns:
      the jitted run, which donates the state it is called with.
    """
    # As in `jit_step`; the data arrays are whole on every device.
    placed = jax.tree.map(lambda x: x.sharding, state)
    everywhere = sharding.replicated(mesh)
    return jax.jit(
        _sharded_multi_step(_within(step, mesh), batch_fn, sharding.batch_sharding(mesh)),
        in_shardings=(placed, everywhere, everywhere),
        out_shardings=(placed, everywhere, everywhere),
        donate_argnums=0,
    )


# jax keeps traces and programs by the function that it compiles. The same function for the same parts, and a second run
# of equal options in one process (another seed in a notebook, a resume) compiles nothing.
_init = functools.lru_cache(maxsize=16)(make_init)


@functools.lru_cache(maxsize=16)
def _within(step: TrainStep, mesh: Mesh) -> TrainStep:
    """Returns the step, in which codebooks know that they are split over devices."""
    return step if mesh.shape[collectives.FSDP] == 1 else functools.partial(collectives.within, mesh, step)


@functools.lru_cache(maxsize=16)
def _sharded_multi_step(step: TrainStep, batch_fn: Callable, split: NamedSharding) -> Callable:
    def sharded_batch(arrays: Batch, key: jax.Array, step: jax.Array) -> Batch:
        # Each device makes its own rows of the batch. Without this XLA may make all of them everywhere.
        return jax.lax.with_sharding_constraint(batch_fn(arrays, key, step), split)

    return make_multi_step(step, sharded_batch)


def pmap_step(model: Model, tx: optax.GradientTransformation, *, axis_name: str = "data", **options: Any) -> Callable:
    """Returns the step under `jax.pmap`: (state, batch [devices, b, ...]) -> (state, metrics).

    The state goes in and comes out unstacked (`in_axes=None`); noise is keyed by the global example index, so the
    result equals one device's on the whole batch to float tolerance. Options are those of `make_train_step`.

    Args:
      model: the model.
      tx: optimizer over `{group: params}`.
      axis_name: of the mapped axis.
      options: keyword arguments of `make_train_step`.

    Returns:
      the compiled step; metrics are means over the global batch.
    """
    # The local view: each device sees its shard of the batch, and the step itself takes means over the axis.
    step = make_train_step(model, tx, axis_name=axis_name, **options)
    # After those means the state is the same everywhere, so that one copy of it stands for all.
    return jax.pmap(step, axis_name=axis_name, in_axes=(None, 0), out_axes=(None, None))  # type: ignore[arg-type]
