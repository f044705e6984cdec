"""Training without a run folder, through what `vae-jax train` uses: its step, `DeviceFeed` and its shuffled batches."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import memory
from vae_jax import data, spec, train
from vae_jax.data.pipeline import make_batch_fn
from vae_jax.data.source import Info, Source, from_arrays
from vae_jax.model import Model, ModelConfig
from vae_jax.runs.config import Config
from vae_jax.train.feed import DeviceFeed


def random_images(n: int, side: int, values: str, channels: int = 1) -> Source:
    """Returns n random images: "grey", or "binary" as the conv peer makes them."""
    shape = (side, side, channels)
    draw = np.random.default_rng(0).integers(0, 256, (n, *shape), np.uint8)
    image = np.where(draw > 127, 255, 0).astype(np.uint8) if values == "binary" else draw
    return from_arrays(Info("random", shape, {"train": n}, "standard", "random"), "train", {"image": image})


class Started(NamedTuple):
    """A model with what trains it: its pure functions, its state at step 0, and the feed that makes updates."""

    model: Model
    state: Any
    feed: DeviceFeed


def started(config: Config, source: Source) -> Started:
    """Returns a config about to be trained on a training split, without a run folder."""
    mesh = train.make_mesh(config.mesh)
    model = config.model.build(spec.images(*source.info.shape))
    example = {"x": jnp.zeros((1, *source.info.shape))}
    shapes = jax.eval_shape(model.init, jax.random.key(0), example)[0]
    tx = train.make_optimizer({group: config.optimizer for group in shapes}, config.steps, model.training.gates)
    state = train.init_state(model, tx, jax.random.key(config.seed), example, mesh=mesh)
    step = train.make_train_step(model, tx)
    feed = DeviceFeed(step, make_batch_fn(source, config.data), dict(source.arrays), state, mesh)
    return Started(model, state, feed)


class Trained(NamedTuple):
    """A trained model: its pure functions, its state, and the seconds that the steps took, compilation included."""

    model: Model
    state: Any
    seconds: float


def train_config(config: Config, watch: Callable[[int, dict[str, Any]], None] | None = None) -> Trained:
    """Trains a config: for studies of many short runs.

    Args:
      config: what to train.
      watch: called with (step, metrics) ten times in training.

    Returns:
      the trained model.
    """
    model, state, feed = started(config, data.load(config.data, "train"))
    start, part = time.perf_counter(), max(config.steps // 10, 1)
    while int(state.step) < config.steps:
        state, metrics, finite = feed.advance(state, min(part, config.steps - int(state.step)))
        if not bool(finite):
            raise RuntimeError(f"not finite at step {int(state.step)}")
        if watch is not None:
            watch(int(state.step), metrics)
    return Trained(model, state, time.perf_counter() - start)


class Trainer:
    """A model in training, for its speed. `compile_s` is the time from the first call to the end of its one step."""

    def __init__(self, config: ModelConfig, lr: float, source: Source, options: data.DataConfig):
        whole = Config(steps=100_000, data=options, model=config, optimizer=train.Optimizer(lr=lr))
        _, self._state, self._feed = started(whole, source)
        self.compile_s = self.seconds(1)
        self.seconds(5)

    def seconds(self, steps: int) -> float:
        """Makes the steps and returns how long they took, until their metrics have reached the host."""
        start = time.perf_counter()
        self._state, metrics, finite = self._feed.advance(self._state, steps)
        loss = float(metrics["loss"])
        elapsed = time.perf_counter() - start
        if not bool(finite):
            raise RuntimeError(f"loss {loss} is not finite")
        return elapsed

    def rates(self, rounds: int, steps: int) -> list[float]:
        """Returns steps/s of each round of so many steps."""
        return [steps / self.seconds(steps) for _ in range(rounds)]


def matmul_peak(side: int = 1024, repeats: int = 12) -> float:
    """Returns GFLOP/s of the best of a few large square float32 products, four per dispatch."""
    a = jax.random.normal(jax.random.key(0), (side, side)) / side**0.5
    # Four products per dispatch: the time to start one is no part of the peak.
    chain = jax.jit(lambda x: x @ a @ a @ a @ a)
    times = []
    jax.block_until_ready(chain(a))
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(chain(a))
        times.append(time.perf_counter() - start)
    return 8 * side**3 / min(times) / 1e9


def result(unit: str, rates: list[float], compile_s: float, gflops: float | None = None) -> dict[str, Any]:
    """Returns the JSON of a job.

    Args:
      unit: of the rates, their key.
      rates: one of each round.
      compile_s: time of compilation with the first step.
      gflops: GFLOP/s at the median rate; None where nobody counted them.
    """
    # The peak of the processor takes memory of its own, so it comes last.
    found = {unit: rates, "compile_s": compile_s, "memory_gib": memory.peak_gib()}
    return found if gflops is None else found | {"gflops": gflops, "peak_gflops": matmul_peak()}
