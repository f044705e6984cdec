"""Many runs of one program: a population of states with a leading member axis, trained together.

A member is what a run of its own is: its key, its order of the data, its learning rates and traced scalars are its own.
Two forms of one program, equal to rounding: `vmap` makes the same operation for all members of a device at once; `map`
takes the members of a device one after the other, in the memory of one batch. On CPU both take about the same processor
time, also with convolutions, but XLA runs the inner loop of `map` on one core.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vae_jax import prng
from vae_jax.model import Batch, Metrics, Model
from vae_jax.train.state import TrainState, make_init
from vae_jax.train.step import TrainStep, all_finite

Strategy = Literal["vmap", "map"]
Rates = dict[str, jax.Array]
AXIS = "member"


class Together(NamedTuple):
    """What a chunk of steps leaves behind; every leaf has the leading axis M.

    Attributes:
      states: the states; that of a member that diverged is its last good one.
      bad: int32 [M], the step at which a loss, metric or gradient was not finite first; -1 of a sound member.
      metrics: means over the steps that each member made; of the bad step alone for a member that diverged in it.
      made: int32 [M], the steps of the chunk that each member made.
    """

    states: TrainState
    bad: jax.Array
    metrics: Metrics
    made: jax.Array


def member_mesh(members: int, devices: Sequence[Any]) -> Mesh:
    """Returns a mesh of as many of the devices as divide the members evenly."""
    # `shard_map` needs the same number of members on every device.
    count = max(n for n in range(1, len(devices) + 1) if members % n == 0)
    return jax.make_mesh((count,), (AXIS,), (AxisType.Auto,), devices=list(devices)[:count])


def make_population_step(
    make_step: Callable[[Rates], TrainStep],
    batch_fn: Callable[[Batch, jax.Array, jax.Array], Batch],
    mesh: Mesh,
    strategy: Strategy,
) -> Callable[[TrainState, jax.Array, Rates, Batch, jax.Array], Together]:
    """Returns `run(states, bad, rates, arrays, n) -> Together`: n steps of every member in one dispatch.

    A member whose loss, metrics or gradient norm is not finite keeps the state of before that step and makes no
    further one. n is traced, so where checkpoints fall cannot change a bit of the result.

    Args:
      make_step: learning rate of each parameter group (scalars) -> the step of a run.
      batch_fn: `(arrays, key, step) -> batch`, that of a run; each member calls it with its own key.
      mesh: of `member_mesh`; members are split over it, and never talk to each other.
      strategy: how the members of one device are computed.

    Returns:
      the jitted run; states [M, ...], bad int32 [M], rates {group: [M]}, the data arrays (no member axis) and n. The
      states it is called with are donated.
    """

    def member(state: TrainState, bad: jax.Array, rates: Rates, arrays: Batch, n: jax.Array) -> Together:
        # Built while tracing: the learning rates are arrays, so one program serves all members.
        train_step = make_step(rates)

        def step(state: TrainState) -> tuple[TrainState, Metrics]:
            return train_step(state, batch_fn(arrays, prng.site_key(state.key, "data"), state.step))

        # Only the step knows the names and shapes of its metrics, and the loop carries them from the start.
        shapes = jax.eval_shape(step, state)[1]
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        # A member ends with its n-th step of the chunk or with its first bad one; one that came in bad makes none.
        def cond(carry: Together) -> jax.Array:
            return (carry.made < n) & (carry.bad < 0)

        def body(carry: Together) -> Together:
            new, metrics = step(carry.states)
            finite = all_finite(metrics)
            # Within `vmap` the loop itself masks members that have ended; this keeps the last good state.
            kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, carry.states)
            total = jax.tree.map(lambda t, m: jnp.where(finite, t + m, m), carry.metrics, metrics)
            return Together(kept, jnp.where(finite, -1, new.step), total, carry.made + finite)

        made = jnp.zeros((), jnp.int32)
        states, after, total, made = jax.lax.while_loop(cond, body, Together(state, bad, zeros, made))
        # From sums to means; for a member that went bad these are the metrics of a single step already.
        scale = jnp.where(after < 0, 1.0 / jnp.maximum(made, 1), 1.0)
        return Together(states, after, jax.tree.map(lambda t: t * scale, total), made)

    def members(states: TrainState, bad: jax.Array, rates: Rates, arrays: Batch, n: jax.Array) -> Together:
        if strategy == "vmap":
            return jax.vmap(member, in_axes=(0, 0, 0, None, None))(states, bad, rates, arrays, n)
        # One member at a time, so that the memory is that of a single run.
        return jax.lax.map(lambda own: member(own[0], own[1], own[2], arrays, n), (states, bad, rates))

    # Members never communicate: under `shard_map` each device runs the program on its own ones, without collectives.
    split, everywhere = PartitionSpec(AXIS), PartitionSpec()
    shared = jax.shard_map(
        members,
        mesh=mesh,
        in_specs=(split, split, split, everywhere, everywhere),
        out_specs=split,
        check_vma=False,
    )
    return jax.jit(shared, donate_argnums=0)


def init_population(
    model: Model,
    tx: optax.GradientTransformation,
    seeds: Sequence[int],
    hypers: Sequence[dict[str, float]],
    batch: Batch,
    *,
    mesh: Mesh,
    ema: bool = False,
) -> TrainState:
    """Returns the states [M, ...] at step 0, each that of a run with its seed and traced scalars.

    Args:
      model: the model of one member.
      tx: its optimizer.
      seeds: of the members, M.
      hypers: traced scalars of each member, over those of `model`.
      batch: any batch of the run; only its shapes matter.
      mesh: of `member_mesh`.
      ema: keep moving averages of the params.

    Returns:
      a `TrainState` whose leaves have a leading axis of members, spread over the mesh.
    """
    init = make_init(model, tx, ema=ema)
    placed = NamedSharding(mesh, PartitionSpec(AXIS))
    # The keys that runs with these seeds would have.
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
    # In turn: the batched form of the initializers takes the compiler longer, and there is nothing to gain.
    states = jax.jit(lambda keys: jax.lax.map(lambda key: init(key, batch), keys), out_shardings=placed)(keys)
    # `init` fills in the traced scalars of the model; each member has its own.
    own = {name: jnp.asarray([hyper[name] for hyper in hypers], jnp.float32) for name in model.training.hyper}
    return replace(states, hyper=jax.device_put(own, placed))


def member_states(states: TrainState) -> list[TrainState]:
    """Returns the state of each member, on the first device."""
    # Typed keys cannot be NumPy arrays: they go to the host as uint32 words and are wrapped again below.
    raw = replace(states, key=jax.random.key_data(states.key))
    host = jax.device_get(raw)
    device = jax.devices()[0]

    def one(number: int) -> TrainState:
        own = jax.device_put(jax.tree.map(lambda x: x[number], host), device)
        return replace(own, key=jax.random.wrap_key_data(own.key))

    return [one(number) for number in range(len(host.step))]
