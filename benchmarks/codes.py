"""Jobs of `benchmarks.ours` on models with codes: quantizing vectors, the step of the VQ-VAE, sampling of a prior."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.stages import Compiled

import vae_jax as vj
from benchmarks import memory
from benchmarks.sizes import QUANTIZE, SAMPLING, Quantize
from benchmarks.training import Trainer, random_images, result
from vae_jax import prng
from vae_jax.models.stage2 import Around, Choices, Transformer, draw
from vae_jax.quantizers import VQ
from vae_jax.spaces import Codes


def seconds(run: Callable[[], Any]) -> float:
    """Returns how long a call takes, until its results are there."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def extra_gib(run: Callable[[], Any]) -> float:
    """Returns by how much a call raises the peak of memory: resident on the CPU, the allocator's on a device."""

    def peak() -> float:
        stats = jax.devices()[0].memory_stats()
        return stats["peak_bytes_in_use"] / 2**30 if stats else memory.peak_gib()

    before = peak()
    jax.block_until_ready(run())
    return peak() - before


def quantizer(size: Quantize) -> Compiled:
    """Returns the compiled program of `VQ` in evaluation: codebook and vectors -> entries and indices."""
    vq = VQ(codes=size.codes)

    def forward(state: Any, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        out = vq.quantize({}, state, z)
        return out.z, out.indices

    state = jax.eval_shape(partial(vq.init_state, features=size.features), jax.random.key(0))
    z = jax.ShapeDtypeStruct((size.vectors, size.features), jnp.float32)
    return jax.jit(forward).lower(state, z).compile()


def program_gib(program: Compiled) -> float:
    """Returns what a program takes beside its arguments, in GiB: temporaries and results."""
    found = program.memory_analysis()
    return (found.temp_size_in_bytes + found.output_size_in_bytes) / 2**30


def quantize(args: argparse.Namespace) -> None:
    """The nearest of K entries for N vectors, and the entry itself, as of `torch_quantize`; one rate per round."""
    size = QUANTIZE[args.quick]
    z = jax.random.normal(jax.random.key(0), (size.vectors, size.features))
    state = VQ(codes=size.codes).init_state(jax.random.key(1), size.features)
    start = time.perf_counter()
    compiled = quantizer(size)
    compile_s = time.perf_counter() - start
    # Two counts, the larger is kept: what the process took more than ever before (compilation may have taken as much),
    # and what the program says of its temporaries and results.
    extra = extra_gib(lambda: compiled(state, z))
    extra = max(extra, program_gib(compiled))
    rates = [size.vectors / seconds(lambda: compiled(state, z)) for _ in range(args.rounds)]
    gflops = statistics.median(rates) / size.vectors * size.flops / 1e9
    found = result("vectors_per_s", rates, compile_s, gflops)
    print(json.dumps(found | {"extra_gib": extra, "matrix_gib": size.matrix_gib}), flush=True)


def vq(args: argparse.Namespace) -> None:
    """The step of `vq_vae_cifar`, as of `torch_vq_vae`; a rate every 60 steps."""
    config = vj.experiment("vq_vae_cifar")
    source = random_images(2048, 32, "grey", channels=3) if args.quick else vj.data.load(config.data, "train")
    trainer = Trainer(config.model, 3e-4, source, config.data)
    rates = trainer.rates(args.rounds, args.steps or 60)
    print(json.dumps(result("steps_per_s", rates, trainer.compile_s)), flush=True)


def sampling(args: argparse.Namespace) -> None:
    """Codes drawn from a transformer prior, with the cache of keys and values and without, in turns."""
    size = SAMPLING[args.quick]
    around = Around(Codes((size.side, size.side, 1), size.codes))
    prior = Transformer(width=size.width, depth=size.depth)
    params = prior.init(jax.random.key(0), around)
    samplers = {
        "cached": jax.jit(lambda params, key: prior.sample(params, key, size.batch, None, around, Choices())),
        "uncached": jax.jit(lambda params, key: full_passes(prior, params, key, size.batch, around)),
    }
    tokens = size.batch * around.length
    rates: dict[str, list[float]] = {name: [] for name in samplers}
    for i in range(args.rounds + 1):
        key = jax.random.key(i)
        for name, run in samplers.items():
            elapsed = seconds(partial(run, params, key))
            # The first call compiles.
            rates[name] += [tokens / elapsed] if i else []
    print(json.dumps({"tokens_per_s": rates, "memory_gib": memory.peak_gib()}), flush=True)


def full_passes(prior: Transformer, params: Any, key: jax.Array, n: int, around: Around) -> jax.Array:
    """Returns the codes that `prior.sample` draws, int32 [n, length], by a pass over all places for each of them."""
    keys = prng.example_keys(key, jnp.arange(n))

    def one(z: jax.Array, place: jax.Array) -> tuple[jax.Array, None]:
        logits = prior.logits(params, None, z, None, around)[:, place]
        return z.at[:, place].set(draw.codes(prng.numbered_keys(keys, place), logits, Choices())), None

    # Logits of a place depend on the codes before it alone: what the places after it hold does not matter.
    return jax.lax.scan(one, jnp.zeros((n, around.length), jnp.int32), jnp.arange(around.length))[0]
