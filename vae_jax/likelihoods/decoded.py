"""Decoded distributions p(x|z). Each is a pytree of decoder outputs with `log_prob`, `mean`, `mode`, `sample`.

`log_prob` sums over every axis but the first and is float32; `data_shape` is always [B, H, W, C]. With a `mask` (bool,
of the shape of x) the sum is over the entries that are observed, where it is True: log p(x_obs|z), as the entries are
independent given z. What x holds elsewhere does not matter, as long as it is finite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vae_jax import prng
from vae_jax.distributions.gaussian import LOG_2PI
from vae_jax.distributions.special import cross_entropy

WIDEST = 30.0  # log scale from which draws no longer widen: exp(89) would be infinite, and the image with it


def sum_pixels(x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Returns the sum over all axes but the first, [B]; with a mask of the entries where it is True."""
    # Chosen, not multiplied: a term that is not finite would stay NaN at 0 times itself.
    if mask is not None:
        x = jnp.where(mask, x, 0.0)
    # A product with ones, not `sum`: XLA:CPU fuses a sum with what makes its terms into one scalar loop, and the IW
    # bound of an MLP then costs 5.8 times as much. `highest`, or accelerators would round the terms to 10 bits.
    return jnp.dot(x.reshape(x.shape[0], -1), jnp.ones(x[0].size, x.dtype), precision="highest")


class BernoulliPixels(NamedTuple):
    """Independent Bernoulli pixels. `logits`: [B, H, W, C].

    For x in (0, 1) the value is the cross entropy of gray levels (the usual "gray-level MNIST" bound), a bound on
    no density: compare it only with numbers of the same protocol.
    """

    logits: jax.Array

    def log_prob(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Returns sum x log p + (1 - x) log(1 - p) in nats [B]; finite at any finite logits."""
        # From logits: the log of a saturated probability would be infinite.
        return -sum_pixels(cross_entropy(self.logits, x), mask)

    def mean(self) -> jax.Array:
        """Returns the pixel probabilities [B, H, W, C]."""
        return jax.nn.sigmoid(self.logits)

    def mode(self) -> jax.Array:
        """Returns the more probable of 0 and 1 at each pixel [B, H, W, C]."""
        return (self.logits > 0).astype(jnp.float32)

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns binary images [B, H, W, C], from one key per example."""
        return (prng.uniform(keys, self.logits.shape[1:]) < self.mean()).astype(jnp.float32)


class GaussianPixels(NamedTuple):
    """Independent Gaussian pixels. `loc`: [B, H, W, C]; `log_std` broadcasts against it."""

    loc: jax.Array
    log_std: jax.Array

    def log_prob(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Returns log N(x; loc, std^2) in nats [B], a density: positive values are normal for small std."""
        scaled = (x - self.loc) * jnp.exp(-self.log_std)
        return -sum_pixels(0.5 * jnp.square(scaled) + self.log_std + 0.5 * LOG_2PI, mask)

    def mean(self) -> jax.Array:
        """Returns loc [B, H, W, C]."""
        return self.loc

    def mode(self) -> jax.Array:
        """Returns loc [B, H, W, C]."""
        return self.loc

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns loc + std * eps [B, H, W, C], from one key per example."""
        # Capped: where training leaves the log standard deviation huge, an image must stay finite.
        return self.loc + jnp.exp(jnp.minimum(self.log_std, WIDEST)) * prng.normal(keys, self.loc.shape[1:])


class AutoregressivePixels(NamedTuple):
    """p(x|z) = prod_i p(x_i | x_<i, z), pixels in raster order. `given(x)` is the likelihood with every x_<i known.

    Attributes:
      given: a pytree that is called with x [B, H, W, C] and returns a likelihood whose pixel (i, j) depends only on
        the pixels before it; called with (x, (i, j)), the likelihood [B, 1, 1, C] of that pixel alone.
      blank: zeros [B, H, W, C].
    """

    given: Any
    blank: jax.Array

    def log_prob(self, x: jax.Array) -> jax.Array:
        """Returns log p(x|z) in nats [B], one pass (teacher forcing)."""
        return self.given(x).log_prob(x)

    def _unroll(self, pick: Callable[[Any, jax.Array], jax.Array]) -> jax.Array:
        # Raster order: pixel i depends on the pixels before it, which are written by then, and not on later ones.
        _, height, width, _ = self.blank.shape

        def body(i: jax.Array, x: jax.Array) -> jax.Array:
            row, column = i // width, i % width
            # One pixel at a time: whole images would cost H * W times as much.
            pixel = pick(self.given(x, (row, column)), i)
            return jax.lax.dynamic_update_slice(x, jnp.asarray(pixel, x.dtype), (0, row, column, 0))

        return jax.lax.fori_loop(0, height * width, body, self.blank)

    def mode(self) -> jax.Array:
        """Returns the greedy image [B, H, W, C]: each pixel the mode given those before it."""
        return self._unroll(lambda p, i: p.mode())

    def mean(self) -> jax.Array:
        """Returns E[x_i | x_<i, z] along the greedy image [B, H, W, C]; the exact mean would need all images."""
        return self.given(self.mode()).mean()

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns x ~ p(x|z) [B, H, W, C], pixel by pixel, from one key per example."""

        def pick(p: Any, i: jax.Array) -> jax.Array:
            # One key per example and pixel, from the number of the pixel.
            return p.sample(prng.numbered_keys(keys, i))

        return self._unroll(pick)
