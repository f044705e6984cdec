"""Peer for speed: the step of sonnet's CIFAR-10 VQ-VAE (128 wide, 2 residual blocks of 32, K 512, D 64) in PyTorch.

Run: python -m benchmarks.peers.torch_vq_vae library|plain [--data FILE] [--rounds 3] [--steps 60] [--device cpu]
[--compile]. The quantizer is `VectorQuantize` of vector-quantize-pytorch, or moving averages written by hand. FILE is a
`data_batch_1.bin.gz` of CIFAR-10; without one the images are random. Prints one JSON line: {"steps_per_s": [one per
round], "memory_gib"}.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import memory

CODES, FEATURES, WIDTH, HIDDEN, BATCH = 512, 64, 128, 32, 32
DECAY, COMMITMENT, EPSILON, VARIANCE = 0.99, 0.25, 1e-5, 0.0633  # the last: of CIFAR-10's pixels in [0, 1]


class Residual(nn.Module):
    """x + conv1x1(relu(conv3x3(relu(x))))."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(WIDTH, HIDDEN, 3, 1, 1), nn.ReLU(), nn.Conv2d(HIDDEN, WIDTH, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class MovingAverages(nn.Module):
    """The nearest entry, straight through, with a codebook of moving averages: [B, D, h, w] -> (the same, cost)."""

    def __init__(self):
        super().__init__()
        book = torch.randn(CODES, FEATURES)
        for name, start in (("book", book), ("size", torch.ones(CODES)), ("total", book.clone())):
            self.register_buffer(name, start)

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = z.permute(0, 2, 3, 1)
        flat = z.detach().reshape(-1, FEATURES)
        index = torch.addmm(-0.5 * self.book.square().sum(-1), flat, self.book.T).argmax(-1)
        q = self.book[index].view_as(z)
        with torch.no_grad():
            counts = torch.bincount(index, minlength=CODES).to(flat.dtype)
            self.size.lerp_(counts, 1 - DECAY)
            self.total.lerp_(torch.zeros_like(self.total).index_add_(0, index, flat), 1 - DECAY)
            n = self.size.sum()
            self.book = self.total / ((self.size + EPSILON) / (n + CODES * EPSILON) * n)[:, None]
        return (z + (q - z).detach()).permute(0, 3, 1, 2), COMMITMENT * F.mse_loss(z, q)


def library() -> nn.Module:
    """Returns the layer of vector-quantize-pytorch with the same options."""
    from vector_quantize_pytorch import VectorQuantize

    return VectorQuantize(
        FEATURES, CODES, decay=DECAY, commitment_weight=COMMITMENT, rotation_trick=False, accept_image_fmap=True
    )


class VQVAE(nn.Module):
    """Returns the loss of a batch [B, 3, 32, 32]."""

    def __init__(self, kind: str):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, WIDTH // 2, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(WIDTH // 2, WIDTH, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, 1, 1),
            Residual(),
            Residual(),
            nn.ReLU(),
            nn.Conv2d(WIDTH, FEATURES, 1),
        )
        self.quantizer = library() if kind == "library" else MovingAverages()
        self.decoder = nn.Sequential(
            nn.Conv2d(FEATURES, WIDTH, 3, 1, 1),
            Residual(),
            Residual(),
            nn.ReLU(),
            nn.ConvTranspose2d(WIDTH, WIDTH // 2, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(WIDTH // 2, 3, 4, 2, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # The library returns (entries, indices, cost), the averages above (entries, cost).
        q, *_, cost = self.quantizer(self.encoder(x))
        return F.mse_loss(self.decoder(q), x) / VARIANCE + cost.sum()


def pixels(path: Path | None) -> torch.Tensor:
    """Returns uint8 images [N, 3, 32, 32]."""
    if path is None:
        return torch.randint(0, 256, (2048, 3, 32, 32), dtype=torch.uint8)
    rows = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    return torch.from_numpy(rows[:, 1:].reshape(-1, 3, 32, 32).copy())


def main() -> None:
    """Measures one kind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("library", "plain"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    model = VQVAE(args.kind).to(args.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    loss_of = torch.compile(model) if args.compile else model
    images = pixels(args.data).to(args.device)

    def seconds(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            chosen = torch.randint(len(images), (BATCH,), device=args.device)
            loss = loss_of(images[chosen].float().div_(255))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if not np.isfinite(loss.item()):  # waits for the device, too
            raise RuntimeError("the loss is not finite")
        return time.perf_counter() - start

    seconds(5)
    rates = [args.steps / seconds(args.steps) for _ in range(args.rounds)]
    print(json.dumps({"steps_per_s": rates, "memory_gib": memory.peak_gib()}), flush=True)


if __name__ == "__main__":
    main()
