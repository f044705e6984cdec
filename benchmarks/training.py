"""A model in training, through what `vae-jax train` uses: `make_train_step`, `DeviceFeed` and the shuffling batches."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import memory
from vae_jax import data, spec, train
from vae_jax.data.pipeline import make_batch_fn
from vae_jax.data.source import Info, Source, from_arrays
from vae_jax.model import ModelConfig
from vae_jax.train.feed import DeviceFeed


def random_images(n: int, side: int, values: str, channels: int = 1) -> Source:
    """Returns n random images: "grey", or "binary" as the conv peer makes them."""
    shape = (side, side, channels)
    draw = np.random.default_rng(0).integers(0, 256, (n, *shape), np.uint8)
    image = np.where(draw > 127, 255, 0).astype(np.uint8) if values == "binary" else draw
    return from_arrays(Info("random", shape, {"train": n}, "standard", "random"), "train", {"image": image})


class Trainer:
    """A model in training. `compile_s` is the time from the first call to the end of its one step."""

    def __init__(self, config: ModelConfig, lr: float, source: Source, options: data.DataConfig):
        mesh = train.make_mesh(train.MeshConfig())
        model = config.build(spec.images(*source.info.shape))
        tx = train.make_optimizer({"vae": train.Optimizer(lr=lr)}, 100_000)
        batch_fn = make_batch_fn(source, options)
        example = {"x": jnp.zeros((options.batch_size, *source.info.shape))}
        self._state = train.init_state(model, tx, jax.random.key(0), example, mesh=mesh)
        step = train.make_train_step(model, tx)
        self._feed = DeviceFeed(step, batch_fn, dict(source.arrays), self._state, mesh)
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
