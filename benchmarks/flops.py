"""Floating-point operations of one training step: matrix products and convolutions, a multiply-add counted as two.

Backpropagation costs each layer two more products of the same size (gradient of the weights, gradient of the input),
but for the first layer, whose input is data. Everything else (activations, losses, optimizer) is not counted: the
share of the peak that follows is what a perfect step could reach, no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def dense(batch: int, widths: Sequence[int]) -> list[int]:
    """Returns the forward operations of each layer of a fully connected net with these widths."""
    return [2 * batch * i * o for i, o in pairwise(widths)]


def step(layers: Sequence[int]) -> int:
    """Returns the operations of forward and backward, from the forward ones of each layer in order."""
    return 3 * sum(layers) - layers[0]


def mlp_step(batch: int, pixels: int = 784, hidden: Sequence[int] = (512, 512), latent: int = 20) -> int:
    """Returns the operations of one step of the MLP VAE; the encoder gives mean and log variance."""
    encoder = dense(batch, (pixels, *hidden, 2 * latent))
    return step(encoder + dense(batch, (latent, *hidden[::-1], pixels)))


def conv64_step(
    batch: int,
    side: int = 64,
    channels: Sequence[int] = (1, 32, 32, 64, 64),
    kernel: int = 4,
    width: int = 256,
    latent: int = 10,
) -> int:
    """Returns the operations of one step of the 64x64 conv VAE: stride-2 convolutions and their mirror image.

    A transposed convolution is the same product as the convolution it mirrors: every pixel of the small image meets
    the whole kernel once.
    """
    sides = [side >> (i + 1) for i in range(len(channels) - 1)]
    convs = [2 * batch * s * s * kernel**2 * i * o for s, (i, o) in zip(sides, pairwise(channels), strict=True)]
    code = sides[-1] ** 2 * channels[-1]
    inner = dense(batch, (code, width, 2 * latent)) + dense(batch, (latent, width, code))
    return step([*convs, *inner, *convs[::-1]])
