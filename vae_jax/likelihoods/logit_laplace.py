"""Logit-Laplace pixels: a density of a bounded range, whose sample is the sigmoid of a Laplace variable."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import prng
from vae_jax.likelihoods.continuous import LEAST, MOST
from vae_jax.likelihoods.decoded import WIDEST, sum_pixels
from vae_jax.likelihoods.pixels import SeparatePixels, soft_floor
from vae_jax.options.ranges import Between

# Gauss-Legendre nodes and weights on (0, 1), by which the mean is a sum: it has no closed form.
NODES, WEIGHTS = (np.asarray(a, np.float32) for a in np.polynomial.legendre.leggauss(16))
NODES, WEIGHTS = 0.5 * (1 + NODES), 0.5 * WEIGHTS


class LogitLaplacePixels(NamedTuple):
    """y = (1 - 2 e) x + e with p(y) = exp(-|logit y - loc| / b) / (2 b y (1 - y)) on (0, 1).

    `loc`, `log_scale` = log b: [B, H, W, C]; `epsilon` = e, a scalar. With e > 0 a black or white pixel lies inside.
    """

    loc: jax.Array
    log_scale: jax.Array
    epsilon: jax.Array

    def log_prob(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Returns log p(x) = log p(y) + log(1 - 2 e), summed over pixels, in nats [B]."""
        slope = 1.0 - 2.0 * self.epsilon
        # Draws may round to an end of the range of y, where there is no density.
        y = jnp.clip(slope * x + self.epsilon, LEAST, MOST)
        log_y, log_rest = jnp.log(y), jnp.log1p(-y)
        size = jnp.abs(log_y - log_rest - self.loc) * jnp.exp(-self.log_scale)
        return -sum_pixels(size + self.log_scale + math.log(2.0) + log_y + log_rest - jnp.log(slope), mask)

    def _out(self, y: jax.Array) -> jax.Array:
        return (y - self.epsilon) / (1.0 - 2.0 * self.epsilon)

    def mean(self) -> jax.Array:
        """Returns E[x] [B, H, W, C] by quadrature, to about 1e-3."""
        b, total = jnp.exp(jnp.minimum(self.log_scale, WIDEST)), jnp.zeros_like(self.loc)
        # A Laplace variable is loc +- b ln u, u uniform in (0, 1).
        for u, weight in zip(NODES, WEIGHTS, strict=True):
            step = b * math.log(u)
            total += 0.5 * float(weight) * (jax.nn.sigmoid(self.loc - step) + jax.nn.sigmoid(self.loc + step))
        return self._out(total)

    def mode(self) -> jax.Array:
        """Returns the x of y = sigmoid(loc) where b < 1, else the end to which loc is nearer [B, H, W, C]."""
        # From b = 1 on the density rises towards both ends.
        inner = self.log_scale < 0
        return self._out(jnp.where(inner, jax.nn.sigmoid(self.loc), (self.loc > 0).astype(jnp.float32)))

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns x of y = sigmoid(loc + b * (difference of two exponentials)) [B, H, W, C], from one key each."""
        u = prng.uniform(keys, (2, *self.loc.shape[1:]))
        noise = jnp.log1p(-u[:, 0]) - jnp.log1p(-u[:, 1])
        drawn = jax.nn.sigmoid(self.loc + jnp.exp(jnp.minimum(self.log_scale, WIDEST)) * noise)
        return self._out(jnp.clip(drawn, LEAST, MOST))


@dataclass(frozen=True)
class LogitLaplace(SeparatePixels):
    """Logit-Laplace pixels, location and scale of each from the decoder; the likelihood of DALL-E (arXiv:2102.12092).

    Data in [0, 1] are mapped into [epsilon, 1 - epsilon] before the logit, and back on the way out, so that black and
    white have a finite density.

    Example:
      >>> out = jnp.zeros((1, 1, 1, 2))  # location 0, scale 1
      >>> p_x = LogitLaplace(min_log_scale=-60.0).build(out, {}, {})
      >>> round(float(p_x.log_prob(jnp.full((1, 1, 1, 1), 0.5))[0]), 4)  # y = 1/2: ln 2 + ln 0.8
      0.47
    """

    # At the ends of the range of y the density is 0 or infinite; gray levels do not reach them.
    closed: ClassVar[bool] = False

    epsilon: Annotated[float, Between(0, 0.5, "()")] = 0.1
    """Where 0 is mapped to; 1 is mapped to 1 minus it."""
    min_log_scale: float = -6.0
    """Soft floor of the log scales, so that a perfect pixel cannot blow the density up."""

    @property
    def support(self) -> tuple[float, float]:
        # The x of y = 0 and of y = 1.
        beyond = self.epsilon / (1.0 - 2.0 * self.epsilon)
        return (-beyond, 1.0 + beyond)

    def outputs(self, channels: int) -> int:
        return 2 * channels

    def build(self, out, params, state) -> LogitLaplacePixels:
        del params, state
        # out: [B, H, W, 2C], all locations before all log scales.
        loc, log_scale = jnp.split(out, 2, axis=-1)
        return LogitLaplacePixels(loc, soft_floor(log_scale, self.min_log_scale), jnp.asarray(self.epsilon, out.dtype))
