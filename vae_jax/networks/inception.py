"""Inception-v3 up to its last pooling, as the Frechet inception distance uses it; inference only.

Layers have the names that torchvision and pytorch-fid give them, so that a file of weights is read by name.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

SIZE = 299  # pixels a side that the network looks at
Layer = tuple[int, int | tuple[int, int]]  # width, kernel


class Unit(nn.Module):
    """Convolution without bias, batch normalization by stored moments, ReLU: [B, H, W, C] to [B, H', W', width].

    Stride 1 keeps the size unless `valid`; stride 2 never pads.
    """

    width: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1
    valid: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = (self.kernel, self.kernel) if isinstance(self.kernel, int) else self.kernel
        step, padding = (self.stride, self.stride), "VALID" if self.valid or self.stride > 1 else "SAME"
        # Accelerators round the factors of a float32 product by default; features must not depend on the machine.
        conv = nn.Conv(self.width, size, step, padding, use_bias=False, precision="highest", name="conv")
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=0.001, name="bn")(conv(x)))


def chain(x: jax.Array, name: str, *layers: Layer, stride: int = 1) -> jax.Array:
    """Returns x through units `name_1`, `name_2`, ...; the last one has the stride.

    Args:
      x: [B, H, W, C].
      name: of the units, before their number.
      layers: (width, kernel) of each unit.
      stride: of the last unit.

    Returns:
      [B, H', W', width of the last unit].
    """
    for i, (width, kernel) in enumerate(layers, 1):
        x = Unit(width, kernel, stride if i == len(layers) else 1, name=f"{name}_{i}")(x)
    return x


def fork(x: jax.Array, name: str) -> jax.Array:
    """Returns a flat and an upright unit side by side, [B, H, W, 768]."""
    return jnp.concatenate([Unit(384, (1, 3), name=f"{name}a")(x), Unit(384, (3, 1), name=f"{name}b")(x)], -1)


def mean_pool(x: jax.Array) -> jax.Array:
    """Returns the mean of each 3 x 3 window, [B, H, W, C]; at the border, of the pixels that there are."""
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def max_pool(x: jax.Array) -> jax.Array:
    """Returns the maximum of each 3 x 3 window, [B, H, W, C]; what lies beyond the border never wins."""
    return nn.max_pool(x, (3, 3), (1, 1), "SAME")


def halve(x: jax.Array) -> jax.Array:
    """Returns the maximum of every second 3 x 3 window, [B, (H - 1) // 2, (W - 1) // 2, C]."""
    return nn.max_pool(x, (3, 3), (2, 2), "VALID")


def prepare(images: jax.Array) -> jax.Array:
    """Returns what the network sees, [B, 299, 299, 3] in [-1, 1], of images [B, H, W, 1 or 3] in [0, 1].

    Bilinear between centers of pixels (torch's `align_corners=False`), not antialiased; gray becomes three channels.
    """
    count, channels = images.shape[0], images.shape[-1]
    images = jax.image.resize(images, (count, SIZE, SIZE, channels), "bilinear", antialias=False)
    return jnp.broadcast_to(2.0 * images - 1.0, (count, SIZE, SIZE, 3))


class MixedA(nn.Module):
    """Kernels of 1, 5 and twice 3 pixels: [B, 35, 35, C] to [B, 35, 35, 224 + pooled]."""

    pooled: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        one = Unit(64, name="branch1x1")(x)
        five = chain(x, "branch5x5", (48, 1), (64, 5))
        three = chain(x, "branch3x3dbl", (64, 1), (96, 3), (96, 3))
        return jnp.concatenate([one, five, three, Unit(self.pooled, name="branch_pool")(mean_pool(x))], -1)


class MixedB(nn.Module):
    """Half the size: [B, 35, 35, 288] to [B, 17, 17, 768]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        three = chain(x, "branch3x3dbl", (64, 1), (96, 3), (96, 3), stride=2)
        return jnp.concatenate([Unit(384, 3, 2, name="branch3x3")(x), three, halve(x)], -1)


class MixedC(nn.Module):
    """Kernels of 7 pixels in one direction after the other: [B, 17, 17, 768] to the same."""

    inner: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n, flat, upright = self.inner, (1, 7), (7, 1)
        one = Unit(192, name="branch1x1")(x)
        seven = chain(x, "branch7x7", (n, 1), (n, flat), (192, upright))
        twice = chain(x, "branch7x7dbl", (n, 1), (n, upright), (n, flat), (n, upright), (192, flat))
        return jnp.concatenate([one, seven, twice, Unit(192, name="branch_pool")(mean_pool(x))], -1)


class MixedD(nn.Module):
    """Half the size: [B, 17, 17, 768] to [B, 8, 8, 1280]."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        three = chain(x, "branch3x3", (192, 1), (320, 3), stride=2)
        seven = chain(x, "branch7x7x3", (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3), stride=2)
        return jnp.concatenate([three, seven, halve(x)], -1)


class MixedE(nn.Module):
    """Branches that fork: [B, 8, 8, C] to [B, 8, 8, 2048]. The second of two pools by the maximum."""

    maximum: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        one = Unit(320, name="branch1x1")(x)
        three = fork(Unit(384, name="branch3x3_1")(x), "branch3x3_2")
        twice = fork(chain(x, "branch3x3dbl", (448, 1), (384, 3)), "branch3x3dbl_3")
        pooled = max_pool(x) if self.maximum else mean_pool(x)
        return jnp.concatenate([one, three, twice, Unit(192, name="branch_pool")(pooled)], -1)


class InceptionV3(nn.Module):
    """Pool3 features [B, 2048] of images [B, H, W, 1 or 3] in [0, 1], by the graph of pytorch-fid 0.3.

    It differs from torchvision's in its pooling: means at a border are of the pixels inside, and one is a maximum.

    References: arXiv:1512.00567; arXiv:1706.08500; https://github.com/mseitzer/pytorch-fid.
    """

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = Unit(32, 3, 2, name="Conv2d_1a_3x3")(prepare(images))
        x = Unit(32, 3, valid=True, name="Conv2d_2a_3x3")(x)
        x = halve(Unit(64, 3, name="Conv2d_2b_3x3")(x))
        x = Unit(80, name="Conv2d_3b_1x1")(x)
        x = halve(Unit(192, 3, valid=True, name="Conv2d_4a_3x3")(x))
        for letter, pooled in zip("bcd", (32, 64, 64)):
            x = MixedA(pooled, name=f"Mixed_5{letter}")(x)
        x = MixedB(name="Mixed_6a")(x)
        for letter, inner in zip("bcde", (128, 160, 160, 192)):
            x = MixedC(inner, name=f"Mixed_6{letter}")(x)
        x = MixedD(name="Mixed_7a")(x)
        x = MixedE(False, name="Mixed_7b")(x)
        return MixedE(True, name="Mixed_7c")(x).mean((1, 2))
