"""Reconstruction losses that are no density: 1 - MS-SSIM in the place of -log p(x|z)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from vae_jax.likelihoods.pixels import PixelLikelihood
from vae_jax.metrics.structural import ms_ssim
from vae_jax.options.ranges import Positive


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
