"""Reconstruction losses that are no density: 1 - MS-SSIM in the place of -log p(x|z)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.likelihoods.pixels import PixelLikelihood
from vae_jax.options.ranges import Positive

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # exponents of the five scales (Wang et al. 2003, sec. 4)
WINDOW, SIGMA = 11, 1.5  # Gaussian window of SSIM (Wang et al. 2004)
C1, C2 = 0.01**2, 0.03**2  # stabilisers for a data range of 1
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


class MsSsimPixels(NamedTuple):
    """One image sigmoid(logits), scored by MS-SSIM: no noise model. `logits`: [B, H, W, C]; `weight`: a scalar."""

    logits: jax.Array
    weight: jax.Array

    def log_prob(self, x: jax.Array) -> jax.Array:
        """Returns -weight * D * (1 - MS-SSIM(x, mean)) [B], D sub-pixels: a loss, not the log of a density."""
        return -self.weight * x[0].size * (1.0 - ms_ssim(x, self.mean()))

    def mean(self) -> jax.Array:
        """Returns sigmoid(logits) [B, H, W, C]."""
        return jax.nn.sigmoid(self.logits)

    def mode(self) -> jax.Array:
        """Returns sigmoid(logits) [B, H, W, C]."""
        return self.mean()

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns sigmoid(logits) [B, H, W, C]: a loss has no noise to draw."""
        del keys
        return self.mean()


@dataclass(frozen=True)
class MsSsim(PixelLikelihood):
    """1 - MS-SSIM as the distortion, a loss and no density: no bound on log p(x) (arXiv:1511.06409).

    Example:
      >>> p_x = MsSsim().build(jnp.zeros((1, 1, 1, 1)), {}, {})  # an image of 1/2
      >>> round(float(p_x.log_prob(jnp.ones((1, 1, 1, 1)))[0]), 4)  # 2 x y / (x^2 + y^2) - 1
      -0.2
    """

    # No density: objectives that weigh by p(x|z), and bits per dimension, refuse it.
    normalized: ClassVar[bool] = False

    weight: Annotated[float, Positive()] = 1.0
    """Weight of 1 - MS-SSIM per sub-pixel, so that its sum weighs like that of other pixel losses."""

    @property
    def support(self) -> tuple[float, float]:
        return (0.0, 1.0)

    def build(self, out, params, state) -> MsSsimPixels:
        del params, state
        return MsSsimPixels(out, jnp.asarray(self.weight, jnp.float32))
