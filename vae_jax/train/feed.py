"""Two ways to feed the step, one interface: `advance(state, n)` makes n updates.

`DeviceFeed` makes every batch on the device inside one dispatch; `StreamFeed` takes host batches from an iterator that
reads ahead. Neither knows where the data comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from vae_jax import prng
from vae_jax.model import Batch, Metrics
from vae_jax.train import sharding
from vae_jax.train.parallel import jit_multi_step
from vae_jax.train.state import TrainState
from vae_jax.train.step import TrainStep, all_finite


class Advance(NamedTuple):
    """What a chunk of steps leaves behind.

    If `finite` is False, `state.step` counts the bad step as made, and `metrics` are those of the bad step alone.
    """

    state: TrainState
    metrics: Metrics
    finite: jax.Array


class Feed(Protocol):
    """The loop's view of the data."""

    def advance(self, state: TrainState, n: int) -> Advance:
        """Makes n updates; the given state's buffers are donated."""
        ...

    def position(self) -> dict[str, Any]:
        """Returns what a checkpoint must hold, besides the state, to continue bit for bit (JSON)."""
        ...

    def seek(self, position: dict[str, Any]) -> None:
        """Continues from a saved position."""
        ...


class DeviceFeed:
    """Data on the device; n steps are one dispatch, and the data position is the step counter itself."""

    def __init__(self, step: TrainStep, batch_fn: Callable, arrays: Batch, state: TrainState, mesh: Mesh):
        # Every device holds the whole data set: making a batch needs no transfer, and a shuffle may take any row.
        self._arrays = jax.device_put(arrays, sharding.replicated(mesh))
        self._run = jit_multi_step(step, batch_fn, state, mesh)

    def advance(self, state: TrainState, n: int) -> Advance:
        # n is an array and thus traced; a Python int would compile one program per chunk length.
        return Advance(*self._run(state, self._arrays, jnp.asarray(n, jnp.int32)))

    def position(self) -> dict[str, Any]:
        # The order of the data is a function of the key and the step, and the state holds both.
        return {}

    def seek(self, position: dict[str, Any]) -> None:
        del position


class HostStream(Protocol):
    """An iterator of host batches that can say where it is."""

    def __iter__(self) -> Iterator[dict[str, Any]]: ...
    def __next__(self) -> dict[str, Any]: ...
    def get_state(self) -> dict[str, Any]: ...
    def set_state(self, state: dict[str, Any]) -> None: ...


class StreamFeed:
    """Host batches, one dispatch a step; pixels are prepared (`transform`) on the device inside the step."""

    def __init__(
        self,
        step: TrainStep,
        transform: Callable[[jax.Array, Batch], Batch],
        stream: HostStream,
        state: TrainState,
        mesh: Mesh,
    ):
        self._stream, self._split = stream, sharding.batch_sharding(mesh)
        # The state keeps its placement from step to step.
        placed = jax.tree.map(lambda x: x.sharding, state)

        def one(state: TrainState, total: Metrics, bad: jax.Array, batch: Batch) -> tuple:
            # The data key of the device feed, so that both draw the same noise.
            state, metrics = step(state, transform(prng.site_key(state.key, "data"), batch))
            good, finite = bad < 0, all_finite(metrics)
            # From the first bad step on only its own metrics are kept: those of the later steps of the chunk, which
            # are made all the same, are NaN throughout and would be named as what became NaN.
            total = jax.tree.map(lambda t, m: jnp.where(good, jnp.where(finite, t + m, m), t), total, metrics)
            return state, total, jnp.where(good & ~finite, state.step, bad)

        whole = sharding.replicated(mesh)

        def nothing(state: TrainState, batch: Batch) -> tuple:
            metrics = jax.eval_shape(lambda s, b: step(s, transform(s.key, b))[1], state, batch)
            return jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), metrics), jnp.full((), -1, jnp.int32)

        # One program for every step: with another for the first of a chunk, which rounds in its own way, how long the
        # chunks are (that is, how fast the machine is) would decide the last bits.
        self._nothing = jax.jit(nothing, out_shardings=whole)
        self._one = jax.jit(one, donate_argnums=(0, 1), out_shardings=(placed, whole, whole))

    def advance(self, state: TrainState, n: int) -> Advance:
        total, bad = None, None
        for _ in range(n):
            # Neither this nor the step waits for the device, so the host reads ahead while it computes.
            batch = jax.device_put(next(self._stream), self._split)
            if bad is None:
                total, bad = self._nothing(state, batch)
            state, total, bad = self._one(state, total, bad, batch)
        assert bad is not None, "n is 1 or more"
        assert total is not None
        finite = bad < 0
        # The one point of a chunk where the host waits for the device.
        if not bool(finite):
            # `state.step` counts all n steps by now; what is reported is the step that went bad.
            return Advance(TrainState(**{**vars(state), "step": bad}), total, finite)
        return Advance(state, jax.tree.map(lambda t: t / n, total), finite)

    def position(self) -> dict[str, Any]:
        return self._stream.get_state()

    def seek(self, position: dict[str, Any]) -> None:
        self._stream.set_state(position)
