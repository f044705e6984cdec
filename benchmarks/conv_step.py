"""Times the train step of the 64x64 convolutional beta-VAE in `lax.scan` against PyTorch, interleaved in one session.

Run: python benchmarks/conv_step.py [--peer PEER.py] [--repeats 3] [--steps 30] [--out results.json]

The net is the one of the peer script: 4x4 stride-2 convolutions 32-32-64-64, fully connected 256, 10 latents, batch 64,
Bernoulli likelihood, beta 4, Adam. Data stay on the device as uint8 and every step gathers its own batch. The peer is
run as `python PEER.py 1` and prints a JSON line with `steps_per_s`.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

from vae_jax.networks.convolution import Conv, ConvTranspose

BATCH, LATENTS, BETA = 64, 10, 4.0


class Net(nn.Module):
    """Encoder, sample, decoder: images `[B, 64, 64, 1]` and noise `[B, 10]` to logits, mean and log variance."""

    @nn.compact
    def __call__(self, x, noise):
        h = x
        for features in (32, 32, 64, 64):
            h = nn.relu(Conv(features, 4, 2)(h))
        h = nn.relu(nn.Dense(256)(h.reshape(len(h), -1)))
        mean, log_variance = jnp.split(nn.Dense(2 * LATENTS)(h), 2, axis=-1)
        h = mean + jnp.exp(log_variance / 2) * noise
        h = nn.relu(nn.Dense(1024)(nn.relu(nn.Dense(256)(h)))).reshape(-1, 4, 4, 64)
        for features in (64, 32, 32):
            h = nn.relu(ConvTranspose(features, 4, 2)(h))
        return ConvTranspose(1, 4, 2)(h), mean, log_variance


def make_run(steps: int) -> tuple[Callable, tuple]:
    """A compiled `(carry, data) -> (carry, losses [steps])` and the first carry."""
    net, tx = Net(), optax.adam(1e-4)

    def loss(params, x, key):
        logits, mean, log_variance = net.apply(params, x, jax.random.normal(key, (len(x), LATENTS)))
        distortion = jnp.sum(optax.sigmoid_binary_cross_entropy(logits, x)) / len(x)
        rate = -0.5 * jnp.sum(1 + log_variance - mean**2 - jnp.exp(log_variance)) / len(x)
        return distortion + BETA * rate

    def step(data, carry, _):
        params, opt_state, key, i = carry
        batch_key, noise_key = jax.random.split(jax.random.fold_in(key, i))
        index = jax.random.randint(batch_key, (BATCH,), 0, len(data))
        value, grads = jax.value_and_grad(loss)(params, data[index].astype(jnp.float32), noise_key)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, key, i + 1), value

    @functools.partial(jax.jit, donate_argnums=0)
    def run(carry, data):
        return lax.scan(functools.partial(step, data), carry, None, length=steps)

    params = net.init(jax.random.key(0), jnp.zeros((1, 64, 64, 1)), jnp.zeros((1, LATENTS)))
    return run, (params, tx.init(params), jax.random.key(1), jnp.int32(0))


def peer_steps_per_s(peer: Path) -> float:
    """One repeat of the PyTorch script, in a process of its own."""
    done = subprocess.run([sys.executable, str(peer), "1"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])["steps_per_s"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, help="PyTorch script; without it only ours is timed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    options = parser.parse_args()

    data = (jax.random.uniform(jax.random.key(2), (4096, 64, 64, 1)) > 0.5).astype(jnp.uint8)
    run, carry = make_run(options.steps)
    carry, losses = run(carry, data)
    jax.block_until_ready(losses)
    ours, peer = [], []
    for _ in range(options.repeats):
        start = time.perf_counter()
        carry, losses = run(carry, data)
        jax.block_until_ready(losses)
        ours.append(options.steps / (time.perf_counter() - start))
        line = f"vae_jax {ours[-1]:6.2f} step/s"
        if options.peer:
            peer.append(peer_steps_per_s(options.peer))
            line += f"   torch {peer[-1]:6.2f} step/s   ratio {ours[-1] / peer[-1]:5.2f}"
        print(line, flush=True)
    report = {"backend": jax.default_backend(), "jax": jax.__version__, "vae_jax": ours, "torch": peer}
    report["vae_jax_median"] = statistics.median(ours)
    if peer:
        report["ratio_median"] = statistics.median(a / b for a, b in zip(ours, peer))
        print(f"median ratio {report['ratio_median']:.2f}")
    if options.out:
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
