"""Times single convolutions inside `lax.scan`: the native operation and its autodiff gradients against `vae_jax`.

Run: python benchmarks/conv_layers.py [--batch 64] [--repeats 3] [--only 4x4] [--out results.json]

Prints ms per call, medians of interleaved repeats; `ratio` is native / ours, so above 1 ours is faster. Native
gradients take up to seconds per call on CPU: a repeat is 2 calls of them and 10 of everything else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from vae_jax.networks.convolution import conv, conv_transpose

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


class Layer(NamedTuple):
    """A layer of one of the library's networks; `up` is a transposed convolution."""

    kernel: int
    stride: int
    size: int
    channels: int
    features: int
    up: bool = False

    def __str__(self):
        kind = "up" if self.up else "conv"
        return (
            f"{kind} {self.kernel}x{self.kernel}/{self.stride} {self.size}x{self.size} {self.channels}-{self.features}"
        )


LAYERS = [
    # The 64x64 beta-VAE.
    Layer(4, 2, 64, 1, 32),
    Layer(4, 2, 32, 32, 32),
    Layer(4, 2, 16, 32, 64),
    Layer(4, 2, 8, 64, 64),
    Layer(4, 2, 4, 64, 64, up=True),
    Layer(4, 2, 8, 64, 32, up=True),
    Layer(4, 2, 16, 32, 32, up=True),
    Layer(4, 2, 32, 32, 1, up=True),
    # disentanglement_lib's 2x2 layers, LeNet, 3x3 networks.
    Layer(2, 2, 16, 32, 64),
    Layer(5, 1, 28, 1, 6),
    Layer(5, 1, 14, 6, 16),
    Layer(3, 1, 16, 64, 64),
    Layer(3, 2, 16, 64, 128),
]


def native_conv(x, w, *, stride):
    return lax.conv_general_dilated(x, w, (stride, stride), "SAME", dimension_numbers=DIMENSIONS)


def native_transpose(x, w, *, stride):
    return lax.conv_transpose(x, w, (stride, stride), "SAME", dimension_numbers=DIMENSIONS)


def passes(function: Callable, stride: int) -> dict[str, Callable]:
    """Forward, dx and dw as functions of (x, w, dy)."""
    return {
        "forward": lambda x, w, dy: function(x, w, stride=stride),
        "dx": lambda x, w, dy: jax.vjp(lambda x: function(x, w, stride=stride), x)[1](dy)[0],
        "dw": lambda x, w, dy: jax.vjp(lambda w: function(x, w, stride=stride), w)[1](dy)[0],
    }


def scanned(function: Callable, operands: tuple, length: int) -> Callable:
    """A compiled scan of `length` calls, each depending on the last so that none is hoisted or dropped."""
    out = jax.eval_shape(function, *operands)

    # The operands are arguments and the scan is a loop (length > 1): nothing is there to be folded at compile time.
    @jax.jit
    def run(operands):
        def body(carry, _):
            nudge, _ = carry
            y = function(*(a + nudge for a in operands))
            return (y.reshape(-1)[0] * 1e-30, y), None

        start = (jnp.zeros(()), jnp.zeros(out.shape, out.dtype))
        return lax.scan(body, start, None, length=length)[0]

    return lambda: run(operands)


def timed(run: Callable, length: int) -> float:
    """ms per call."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return (time.perf_counter() - start) / length * 1e3


def measure(layer: Layer, batch: int, repeats: int) -> dict[str, dict[str, float]]:
    """Median ms of native and ours for each pass of a layer."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (batch, layer.size, layer.size, layer.channels))
    w = jax.random.normal(keys[1], (layer.kernel, layer.kernel, layer.channels, layer.features))
    ours, native = (conv_transpose, native_transpose) if layer.up else (conv, native_conv)
    dy = jax.random.normal(keys[2], jax.eval_shape(lambda: native(x, w, stride=layer.stride)).shape)
    results = {}
    for name in ("forward", "dx", "dw"):
        if name == "dx" and layer.channels == 1:
            continue  # images need no gradient
        lengths = {"native": 10 if name == "forward" else 2, "ours": 10}
        runs = {
            kind: scanned(passes(function, layer.stride)[name], (x, w, dy), lengths[kind])
            for kind, function in (("native", native), ("ours", ours))
        }
        for run in runs.values():
            jax.block_until_ready(run())
        times = {kind: [] for kind in runs}
        for _ in range(repeats):
            for kind, run in runs.items():
                times[kind].append(timed(run, lengths[kind]))
        results[name] = {kind: statistics.median(values) for kind, values in times.items()}
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="part of a layer's name, such as 4x4/2 or up")
    parser.add_argument("--out", type=Path, help="also write the table as JSON")
    options = parser.parse_args()

    table = {}
    print(f"{'layer':26} {'pass':8} {'native ms':>10} {'ours ms':>10} {'ratio':>7}")
    for layer in LAYERS:
        if options.only not in str(layer):
            continue
        table[str(layer)] = measure(layer, options.batch, options.repeats)
        for name, row in table[str(layer)].items():
            ratio = row["native"] / row["ours"]
            print(f"{layer!s:26} {name:8} {row['native']:10.2f} {row['ours']:10.2f} {ratio:7.1f}", flush=True)
    if options.out:
        report = {"backend": jax.default_backend(), "jax": jax.__version__, "batch": options.batch, "ms": table}
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
