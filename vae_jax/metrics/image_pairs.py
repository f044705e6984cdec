"""Structural similarity of each pair in two sets of images, a chunk at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.errors import InputError
from vae_jax.metrics import structural
from vae_jax.metrics.arrays import numbers

CHUNK = 256  # images compared at a time
ROUNDING = 1e-5  # that an intensity may lie outside [0, 1]


def ssim(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the structural similarity of each pair of images in [0, 1], [N], mean over windows and channels.

    SSIM = (2 m_x m_y + C1)(2 s_xy + C2) / ((m_x^2 + m_y^2 + C1)(s_x^2 + s_y^2 + C2)), C1 = 0.01^2, C2 = 0.03^2, moments
    under a Gaussian window of 11 pixels, sd 1.5, inside the image (the largest odd window of a smaller image).

    Args:
      x, y: [N, H, W, C] in [0, 1].

    Raises:
      InputError: as of `check_pairs`.

    References: Wang et al. 2004.

    Example:
      >>> x = np.ones((1, 1, 1, 1), np.float32)
      >>> [round(float(ssim(x, y)[0]), 2) for y in (x, x / 2)]  # 2 x y / (x^2 + y^2) of one pixel
      [1.0, 0.8]
    """
    return ssim_of_any(*check_pairs("ssim", x, y))


def ms_ssim(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the multi-scale structural similarity of each pair of images in [0, 1], [N].

    l_M prod_j cs_j^w_j over as many of the five scales as the window fits, their weights scaled to sum 1.

    Args:
      x, y: [N, H, W, C] in [0, 1].

    Raises:
      InputError: as of `check_pairs`.

    References: Wang et al. 2003.

    Example:
      >>> x = np.ones((1, 1, 1, 1), np.float32)
      >>> [round(float(ms_ssim(x, y)[0]), 2) for y in (x, x / 2)]  # one scale: as `ssim`
      [1.0, 0.8]
    """
    return ms_ssim_of_any(*check_pairs("ms_ssim", x, y))


def check_pairs(metric: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns two sets of images, float32.

    Args:
      metric: name for messages.
      x, y: [N, H, W, C] in [0, 1].

    Raises:
      InputError: other or different shapes, or a value that is not finite or outside [0, 1].
    """
    x, y = numbers(f"{metric}: x", x), numbers(f"{metric}: y", y)
    if x.shape != y.shape:
        raise InputError(f"{metric}: x is {x.shape} and y {y.shape}; give pairs of images of one shape")
    if x.ndim != 4 or not x.size:
        raise InputError(f"{metric}: the images are {x.shape}; give [N, H, W, C], none of them 0")
    for name, images in (("x", x), ("y", y)):
        low, high = images.min(), images.max()
        # A NaN passes on to both and fails.
        if not (low >= -ROUNDING and high <= 1.0 + ROUNDING):
            raise InputError(
                f"{metric}: values of {name} are from {low:g} to {high:g}; give finite ones in [0, 1], such as "
                "images / 255 of bytes"
            )
    return x.astype(np.float32), y.astype(np.float32)


def ssim_of_any(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns `ssim` without its checks: the mean image of a Gaussian may lie outside [0, 1]."""
    return _each(_ssim(structural.plan(*x.shape[1:3])[0]), x, y)


def ms_ssim_of_any(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns `ms_ssim` without its checks: the mean image of a Gaussian may lie outside [0, 1]."""
    return _each(_ms_ssim, x, y)


def _each(program: Callable[..., jax.Array], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    found = []
    for start in range(0, len(x), CHUNK):
        a, b = x[start : start + CHUNK], y[start : start + CHUNK]
        missing = ((0, CHUNK - len(a)), *((0, 0),) * 3)
        # Filled up with pairs of black images, which are cut off again: one program serves all chunks.
        found.append(np.asarray(program(np.pad(a, missing), np.pad(b, missing)), np.float64)[: len(a)])
    return np.concatenate(found)


@functools.lru_cache(maxsize=8)
def _ssim(window: int) -> Callable[..., jax.Array]:
    # The window sets the shapes of constant matrices, so it cannot be traced: one program for each.
    return jax.jit(lambda x, y: jnp.mean(structural.ssim_terms(x, y, window)[0], -1))


# Scales and window follow from the shape of the images.
_ms_ssim = jax.jit(structural.ms_ssim)
