"""Peer for speed: vectors quantized in PyTorch, by vector-quantize-pytorch or by blocks of a product.

Run: python -m benchmarks.peers.torch_quantize library|plain [--rounds 3] [--quick] [--device cpu] [--compile].
`library` is `VectorQuantize` in evaluation, as it comes; `plain` is what one would write by hand: the largest
z e - |e|^2 / 2, 1,024 vectors at a time. Prints one JSON line:
{"vectors_per_s": [one per round], "extra_gib", "memory_gib"}.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import memory
from benchmarks.sizes import QUANTIZE, Quantize

ROWS = 1024  # of a block


def library(size: Quantize, device: str) -> Callable[[torch.Tensor], Any]:
    """Returns the forward pass of vector-quantize-pytorch."""
    from vector_quantize_pytorch import VectorQuantize

    # [1, N, D]: of [N, D] it would repeat the codebook for every vector.
    layer = VectorQuantize(size.features, size.codes).eval().to(device)
    return lambda z: layer(z[None])


def plain(size: Quantize, device: str) -> Callable[[torch.Tensor], Any]:
    """Returns the nearest entries and their indices, by blocks."""
    book = torch.randn(size.codes, size.features, device=device)
    offsets = -0.5 * book.square().sum(-1)

    def forward(z: torch.Tensor) -> Any:
        index = torch.cat([torch.addmm(offsets, block, book.T).argmax(-1) for block in z.split(ROWS)])
        return book[index], index

    return forward


KINDS = {"library": library, "plain": plain}


def main() -> None:
    """Measures one kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    size = QUANTIZE[args.quick]
    run = KINDS[args.kind](size, args.device)
    run = torch.compile(run) if args.compile else run
    z = torch.randn(size.vectors, size.features, device=args.device)
    on_gpu = args.device != "cpu"

    def seconds() -> float:
        start = time.perf_counter()
        run(z)
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def peak() -> float:
        return torch.cuda.max_memory_allocated() / 2**30 if on_gpu else memory.peak_gib()

    with torch.no_grad():
        before = peak()
        seconds()
        extra = peak() - before
        rates = [size.vectors / seconds() for _ in range(args.rounds)]
    print(json.dumps({"vectors_per_s": rates, "extra_gib": extra, "memory_gib": memory.peak_gib()}), flush=True)


if __name__ == "__main__":
    main()
