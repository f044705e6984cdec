"""What is measured of this library, each job in a process of its own: `python -m benchmarks.ours JOB OPTIONS`.

Every job prints JSON lines. The jobs train through what `vae-jax train` uses: `make_train_step`, `DeviceFeed` (many
steps per dispatch, uint8 data on the device) and the shuffling batch function.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import flops
from vae_jax import data, models, networks, objectives, spec, train
from vae_jax.data.pipeline import make_batch_fn
from vae_jax.data.source import Info, Source, from_arrays
from vae_jax.train.feed import DeviceFeed

SWEEP = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


def random_images(n: int, side: int, values: str) -> Source:
    """Returns n random images: "grey", or "binary" as the conv peer makes them."""
    draw = np.random.default_rng(0).integers(0, 256, (n, side, side, 1), np.uint8)
    image = np.where(draw > 127, 255, 0).astype(np.uint8) if values == "binary" else draw
    return from_arrays(Info("random", (side, side, 1), {"train": n}, "standard", "random"), "train", {"image": image})


def mnist(is_random: bool, batch: int) -> tuple[Source, data.DataConfig]:
    """Returns MNIST's training split, or as many random images (`--quick`: no files needed)."""
    config = data.DataConfig(name="mnist", batch_size=batch)
    return (random_images(8192, 28, "grey") if is_random else data.load(config, "train")), config


class Trainer:
    """A model in training. `compile_s` is the time from the first call to the end of its one step."""

    def __init__(self, config: models.VAE, lr: float, source: Source, options: data.DataConfig):
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


def peak_memory_gib() -> float:
    """Returns the largest resident size of this process so far, in GiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux hands the parent's peak down through fork in ru_maxrss; VmHWM starts anew at exec.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (2**30 if sys.platform == "darwin" else 2**20)


def result(rate_name: str, rates: list[float], step_flops: int, batch: int, trainer: Trainer) -> dict[str, Any]:
    """Returns the JSON of a training job; `rates` are steps/s."""
    memory, peak = peak_memory_gib(), matmul_peak()
    per_step = batch if rate_name == "images_per_s" else 1
    return {
        rate_name: [r * per_step for r in rates],
        "gflops": statistics.median(rates) * step_flops / 1e9,
        "peak_gflops": peak,
        "compile_s": trainer.compile_s,
        "memory_gib": memory,
    }


def mlp(args: argparse.Namespace) -> None:
    """The MLP VAE of `torch_mlp_vae.py`; one rate per epoch."""
    source, options = mnist(args.quick, batch=128)
    trainer = Trainer(models.VAE(latent_dim=20), 1e-3, source, options)
    steps = args.steps or -(-source.size // 128)
    rates = [steps / trainer.seconds(steps) for _ in range(args.rounds)]
    print(json.dumps(result("images_per_s", rates, flops.mlp_step(128), 128, trainer)), flush=True)


def conv(args: argparse.Namespace) -> None:
    """The 64x64 conv beta-VAE of `torch_conv_beta_vae.py`; a rate every 60 steps."""
    options = data.DataConfig(name="random", batch_size=64)
    config = models.VAE(10, networks.Conv64(kernels=(4, 4, 4, 4)), objective=objectives.Beta(beta=4.0))
    trainer = Trainer(config, 1e-4, random_images(4096, 64, "binary"), options)
    steps = args.steps or 60
    rates = [steps / trainer.seconds(steps) for _ in range(args.rounds)]
    print(json.dumps(result("steps_per_s", rates, flops.conv64_step(64), 64, trainer)), flush=True)


def sweep(args: argparse.Namespace) -> None:
    """The MLP VAE over batch sizes; one JSON line each."""
    for batch in (16, 128) if args.quick else SWEEP:
        source, options = mnist(args.quick, batch)
        trainer = Trainer(models.VAE(latent_dim=20), 1e-3, source, options)
        steps = args.steps or max(8192 // batch, 4)
        rate = statistics.median(steps * batch / trainer.seconds(steps) for _ in range(args.rounds))
        print(json.dumps({"batch": batch, "images_per_s": rate, "compile_s": trainer.compile_s}), flush=True)


JOBS = {"mlp": mlp, "conv": conv, "sweep": sweep}


def main(argv: list[str] | None = None) -> None:
    """Runs one job."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("--rounds", type=int, default=3, help="measurements in this process")
    parser.add_argument("--steps", type=int, default=0, help="steps a measurement; 0 takes the job's own number")
    parser.add_argument("--quick", action="store_true", help="random images instead of MNIST, fewer batch sizes")
    args = parser.parse_args(argv)
    JOBS[args.job](args)


if __name__ == "__main__":
    main()
