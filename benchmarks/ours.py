"""What is measured of this library, each job in a process of its own: `python -m benchmarks.ours JOB OPTIONS`.

Every job prints JSON lines. Models train as in `vae-jax train` (`benchmarks.training`).
"""

from __future__ import annotations

import argparse
import json
import statistics

from benchmarks import codes, flops
from benchmarks.training import Trainer, random_images, result
from vae_jax import data, models, networks, objectives
from vae_jax.data.source import Source

SWEEP = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


def mnist(is_random: bool, batch: int) -> tuple[Source, data.DataConfig]:
    """Returns MNIST's training split, or as many random images (`--quick`: no files needed)."""
    config = data.DataConfig(name="mnist", batch_size=batch)
    return (random_images(8192, 28, "grey") if is_random else data.load(config, "train")), config


def mlp(args: argparse.Namespace) -> None:
    """The MLP VAE of `torch_mlp_vae.py`; one rate per epoch."""
    source, options = mnist(args.quick, batch=128)
    trainer = Trainer(models.VAE(latent_dim=20), 1e-3, source, options)
    rates = trainer.rates(args.rounds, args.steps or -(-source.size // 128))
    gflops = statistics.median(rates) * flops.mlp_step(128) / 1e9
    print(json.dumps(result("images_per_s", [128 * r for r in rates], trainer.compile_s, gflops)), flush=True)


def conv(args: argparse.Namespace) -> None:
    """The 64x64 conv beta-VAE of `torch_conv_beta_vae.py`; a rate every 60 steps."""
    options = data.DataConfig(name="random", batch_size=64)
    config = models.VAE(10, networks.Conv64(kernels=(4, 4, 4, 4)), objective=objectives.Beta(beta=4.0))
    trainer = Trainer(config, 1e-4, random_images(4096, 64, "binary"), options)
    rates = trainer.rates(args.rounds, args.steps or 60)
    gflops = statistics.median(rates) * flops.conv64_step(64) / 1e9
    print(json.dumps(result("steps_per_s", rates, trainer.compile_s, gflops)), flush=True)


def sweep(args: argparse.Namespace) -> None:
    """The MLP VAE over batch sizes; one JSON line each."""
    for batch in (16, 128) if args.quick else SWEEP:
        source, options = mnist(args.quick, batch)
        trainer = Trainer(models.VAE(latent_dim=20), 1e-3, source, options)
        rate = statistics.median(trainer.rates(args.rounds, args.steps or max(8192 // batch, 4)))
        print(json.dumps({"batch": batch, "images_per_s": rate * batch, "compile_s": trainer.compile_s}), flush=True)


JOBS = {
    "mlp": mlp,
    "conv": conv,
    "sweep": sweep,
    "quantize": codes.quantize,
    "vq": codes.vq,
    "sampling": codes.sampling,
}


def main(argv: list[str] | None = None) -> None:
    """Runs one job."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("--rounds", type=int, default=3, help="measurements in this process")
    parser.add_argument("--steps", type=int, default=0, help="steps a measurement; 0 takes the job's own number")
    parser.add_argument("--quick", action="store_true", help="random images instead of files, smaller sizes")
    args = parser.parse_args(argv)
    JOBS[args.job](args)


if __name__ == "__main__":
    main()
