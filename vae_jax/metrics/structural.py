"""Structural similarity of images, traced: one scale (SSIM) and several (MS-SSIM)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # exponents of the five scales (Wang et al. 2003, sec. 4)
WINDOW, SIGMA = 11, 1.5  # Gaussian window of SSIM (Wang et al. 2004)
C1, C2 = 0.01**2, 0.03**2  # stabilizers for a data range of 1
LEAST = 1e-4  # a negative contrast term has no fractional power, and the slope at 0 is infinite


def plan(height: int, width: int) -> tuple[int, tuple[float, ...]]:
    """Returns (side of the window, weights of the scales, which sum to 1) for images of this size.

    Five scales need 11 pixels at the coarsest, 176 in the image. Smaller images keep as many scales as fit the window
    and their weights, scaled to sum 1; images below 11 pixels have one scale and the largest odd window that fits.
    """
    side = min(height, width)
    # Odd, so that the window has a center.
    window = min(WINDOW, side - (side + 1) % 2)
    scales = 1
    # side >> scales is the side of the image after that many halvings.
    while scales < len(WEIGHTS) and side >> scales >= max(window, WINDOW):
        scales += 1
    total = sum(WEIGHTS[:scales])
    return window, tuple(w / total for w in WEIGHTS[:scales])


def _blur(size: int, window: int) -> np.ndarray:
    """Returns the matrix [size - window + 1, size] that takes Gaussian-weighted means inside the image."""
    offset = np.arange(window) - window // 2
    kernel = np.exp(-0.5 * np.square(offset / SIGMA))
    kernel /= kernel.sum()
    rows = size - window + 1
    matrix = np.zeros((rows, size))
    for i in range(rows):
        matrix[i, i : i + window] = kernel
    return matrix.astype(np.float32)


def ssim_terms(x: jax.Array, y: jax.Array, window: int) -> tuple[jax.Array, jax.Array]:
    """Returns (SSIM, its contrast-structure part) of x and y [B, H, W, C] in [0, 1], means over windows [B, C]."""
    # Two products with banded matrices: on CPU several times faster than a depthwise convolution, and its gradient too.
    rows, columns = _blur(x.shape[1], window), _blur(x.shape[2], window)

    def blur(image: jax.Array) -> jax.Array:
        return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, image, precision="highest")

    # Second moments about 1/2 rather than 0: E[x^2] - E[x]^2 of a bright image would lose digits.
    x, y = x - 0.5, y - 0.5
    mean_x, mean_y = blur(x), blur(y)
    # Rounding can leave the variance of a flat region a little below 0.
    var_x = jnp.maximum(blur(x * x) - mean_x * mean_x, 0.0)
    var_y = jnp.maximum(blur(y * y) - mean_y * mean_y, 0.0)
    covariance = blur(x * y) - mean_x * mean_y
    contrast = (2.0 * covariance + C2) / (var_x + var_y + C2)
    # Only luminance depends on where the intensities lie, so it gets the means of the images themselves.
    mean_x, mean_y = mean_x + 0.5, mean_y + 0.5
    luminance = (2.0 * mean_x * mean_y + C1) / (mean_x * mean_x + mean_y * mean_y + C1)
    return jnp.mean(luminance * contrast, (1, 2)), jnp.mean(contrast, (1, 2))


def ms_ssim(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the multi-scale structural similarity of images in [0, 1], l_M prod_j cs_j^w_j, mean over channels [B].

    Args:
      x, y: [B, H, W, C] in [0, 1].

    Returns:
      at most 1, which only equal images reach; scales and window as of `plan`.
    """
    window, weights = plan(*x.shape[1:3])
    value: jax.Array | float = 1.0
    for scale, weight in enumerate(weights):
        ssim, contrast = ssim_terms(x, y, window)
        # Every scale counts with its contrast and structure, the coarsest with its luminance as well.
        last = scale == len(weights) - 1
        value = value * jnp.maximum(ssim if last else contrast, LEAST) ** weight
        if not last:
            x, y = _halve(x), _halve(y)
    return jnp.mean(jnp.asarray(value), -1)


def _halve(x: jax.Array) -> jax.Array:
    """Returns means of 2x2 pixels; an odd last row or column is left out."""
    b, h, w, c = x.shape
    return jnp.mean(x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c), (2, 4))
