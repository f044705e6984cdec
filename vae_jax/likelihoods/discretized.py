"""Masses of the 256 gray levels x = v / 255: discretized logistics, their mixture, and a free categorical.

The level of x is round(255 x), exact for data stored as bytes. In t = 2x - 1 the levels are 2/255 apart, and that of v
owns the cell t -+ 1/255; black and white own the two tails as well, so the 256 masses sum to 1 whatever the parameters.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import prng
from vae_jax.likelihoods.continuous import log_sinhc
from vae_jax.likelihoods.decoded import WIDEST, sum_pixels
from vae_jax.likelihoods.pixels import SeparatePixels, soft_floor
from vae_jax.options.ranges import AtLeast, Positive

LEVELS = 256
HALF = 1.0 / 255.0  # half of a cell, in t
WINDOW = 9  # cells on each side of the location beyond which a narrow logistic is a step


def level(x: jax.Array) -> jax.Array:
    """Returns the gray level v in 0..255 nearest to 255 x, float32."""
    # v / 255 is rounded in float32, so 255 x is only close to v.
    return jnp.clip(jnp.round(x * 255.0), 0.0, 255.0)


def log_mass(v: jax.Array, loc: jax.Array, log_scale: jax.Array) -> jax.Array:
    """Returns log P(V = v) = log[F(t + h) - F(t - h)] of a logistic, t = 2v/255 - 1, h = 1/255; elementwise.

    With p = (t + h - loc)/s and m = (t - h - loc)/s the difference is exactly F(p) (1 - F(m)) (1 - e^(m - p)), a
    product of three factors, none of which underflows in logs; black is the first factor alone, white the second.
    """
    # 2v - 254 is exact, where 2v/255 - 1 + h would round: at the smallest scale that is 1e-5 of a mass.
    inverse = jnp.exp(-log_scale)
    below = jnp.where(v >= 255.0, 0.0, -jax.nn.softplus(-((2.0 * v - 254.0) * HALF - loc) * inverse))
    above = jnp.where(v <= 0.0, 0.0, -jax.nn.softplus(((2.0 * v - 256.0) * HALF - loc) * inverse))
    # log(1 - e^-d) for the cell's width d = 2h/s: finite where s is so large that d is 0 in float32.
    half = HALF * inverse
    width = np.float32(np.log(2 * HALF)) - log_scale - half + log_sinhc(half)
    # Black and white each own a tail, and their mass has no third factor.
    return below + above + jnp.where((v > 0.0) & (v < 255.0), width, 0.0)


def mean_level(loc: jax.Array, log_scale: jax.Array) -> jax.Array:
    """Returns E[V] = sum_j P(V >= j) over the 255 edges j - 1/2 between levels, elementwise, to 2e-3 of a level."""
    # In units of one level: P(V >= j) is the sigmoid of (m - j + 1/2) / s.
    s = 127.5 * jnp.exp(jnp.minimum(log_scale, WIDEST))  # scale and location in levels
    m = 127.5 * (loc + 1.0)
    dark = m < 127.5  # by symmetry the darker half is enough, where the difference of softplus keeps its digits
    m = jnp.where(dark, m, 255.0 - m)
    # Wide: the sum of sigmoids is the midpoint rule of their integral, with the first term of its error at the ends.
    a, b = m / s, (m - 255.0) / s
    slope = jax.nn.sigmoid(a) * jax.nn.sigmoid(-a) - jax.nn.sigmoid(b) * jax.nn.sigmoid(-b)
    wide = s * (jax.nn.softplus(a) - jax.nn.softplus(b)) - slope / (24.0 * s)
    wide = jnp.where(s > 1e4, 255.0 * jax.nn.sigmoid((m - 127.5) / s), wide)  # so wide that it is a straight line
    # Narrow: edges farther than the window are surely below or above.
    narrow, first = jnp.minimum(s, 0.5), jnp.floor(jnp.maximum(m, -20.0)) - WINDOW
    # [2 WINDOW + 1, ...]: a leading axis of the edges around the location.
    j = first[None] + jnp.arange(2.0 * WINDOW + 1.0).reshape(-1, *(1,) * m.ndim)
    inside = jnp.where(j >= 1.0, jax.nn.sigmoid((m[None] - j + 0.5) / narrow[None]), 0.0)
    mean = jnp.where(s > 0.5, wide, jnp.maximum(first - 1.0, 0.0) + jnp.sum(inside, 0))
    # Back from the reflection of the brighter half.
    return jnp.clip(jnp.where(dark, mean, 255.0 - mean), 0.0, 255.0)


def _noise(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    # Standard logistic noise, the logit of u; u = 0 would be minus infinity.
    u = jnp.maximum(prng.uniform(keys, shape), 2.0**-25)
    return jnp.log(u) - jnp.log1p(-u)


def _draw(noise: jax.Array, loc: jax.Array, log_scale: jax.Array) -> jax.Array:
    """Returns the level of a draw of the logistic: cells are where values round to a level."""
    t = loc + jnp.exp(jnp.minimum(log_scale, WIDEST)) * noise
    return level(0.5 * (t + 1.0))


class LogisticPixels(NamedTuple):
    """Independent discretized logistics. `loc`: [B, H, W, C] in [-1, 1] for black to white; `log_scale` broadcasts."""

    loc: jax.Array
    log_scale: jax.Array

    def log_prob(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Returns sum log P(v) in nats [B] for x = v / 255."""
        return sum_pixels(log_mass(level(x), self.loc, self.log_scale), mask)

    def mean(self) -> jax.Array:
        """Returns E[v] / 255 [B, H, W, C]."""
        return mean_level(self.loc, jnp.broadcast_to(self.log_scale, self.loc.shape)) / 255.0

    def mode(self) -> jax.Array:
        """Returns the most probable level [B, H, W, C]: the nearest to loc, or an end that owns a heavy tail."""
        inner = jnp.clip(level(0.5 * (self.loc + 1.0)), 1.0, 254.0)
        # [3, B, H, W, C]. The logistic has one peak, so among inner levels only the one nearest to it can win.
        levels = jnp.stack([inner, jnp.zeros_like(inner), jnp.full_like(inner, 255.0)])
        masses = log_mass(levels, self.loc[None], jnp.broadcast_to(self.log_scale, self.loc.shape)[None])
        best = jnp.argmax(masses, 0)[None]
        return jnp.take_along_axis(levels, best, 0)[0] / 255.0

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns gray levels v / 255 [B, H, W, C], from one key per example."""
        return _draw(_noise(keys, self.loc.shape[1:]), self.loc, self.log_scale) / 255.0


class LogisticMixturePixels(NamedTuple):
    """Mixture of K discretized logistics at each pixel.

    Coupled: one component for all channels of a pixel, P(x) = sum_k w_k prod_c P_k(x_c | x_<c), where the location of
    channel c is loc_c + sum_{d < c} coefficient_cd t_d. Else one mixture for each channel, and no coefficients.

    Attributes:
      loc: [B, H, W, C, K], in [-1, 1] for black to white.
      log_scale: [B, H, W, C, K].
      logits: [B, H, W, 1, K] if coupled, else [B, H, W, C, K].
      coefficients: [B, H, W, C (C - 1) / 2, K], in the order of (1, 0), (2, 0), (2, 1), ...
    """

    loc: jax.Array
    log_scale: jax.Array
    logits: jax.Array
    coefficients: jax.Array

    def log_prob(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Returns sum log P in nats [B] for x = v / 255, summed over pixels and channels."""
        # [B, H, W, C, 1], against K components on the last axis.
        v = level(x)[..., None]
        mass = log_mass(v, self._located(v), self.log_scale)
        # Coupled: all channels come from one component, so their masses multiply before the sum over components.
        if self.logits.shape[-2] == 1:
            mass = jnp.sum(mass, -2, keepdims=True)
        return sum_pixels(jax.nn.logsumexp(jax.nn.log_softmax(self.logits) + mass, -1), mask)

    def mean(self) -> jax.Array:
        """Returns E[v] / 255 [B, H, W, C]; of coupled channels, the means of those before stand for their values."""
        weights, means = jax.nn.softmax(self.logits), []
        for c in range(self.loc.shape[-2]):
            # `means` are [B, H, W, K]: each component continues from its own means of the earlier channels.
            loc = self._located_channel(c, means)
            means.append(mean_level(loc, self.log_scale[..., c, :]))
        return jnp.sum(weights * jnp.stack(means, -2), -1) / 255.0

    def mode(self) -> jax.Array:
        """Returns, channel by channel, the most probable of the components' own levels, black and white [B, H, W, C].

        Exact for one component; the level between two that overlap may be a little more probable.
        """
        weights, chosen = jax.nn.log_softmax(self.logits), []
        for c in range(self.loc.shape[-2]):
            loc, log_scale = self._located_channel(c, [v[..., None] for v in chosen]), self.log_scale[..., c, :]
            # The weights have one row for all channels if coupled, else one for each.
            own = weights[..., min(c, weights.shape[-2] - 1), :]
            inner = jnp.moveaxis(jnp.clip(level(0.5 * (loc + 1.0)), 1.0, 254.0), -1, 0)
            # [K + 2, B, H, W]: the level nearest to each component, black and white.
            levels = jnp.concatenate([inner, jnp.zeros_like(inner[:1]), jnp.full_like(inner[:1], 255.0)])
            masses = jax.nn.logsumexp(own[None] + log_mass(levels[..., None], loc[None], log_scale[None]), -1)
            chosen.append(jnp.take_along_axis(levels, jnp.argmax(masses, 0)[None], 0)[0])
            if weights.shape[-2] == 1:  # what is known of the component from the channels so far
                weights = weights + log_mass(chosen[-1][..., None], loc, log_scale)[..., None, :]
        return jnp.stack(chosen, -1) / 255.0

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns gray levels v / 255 [B, H, W, C], from one key per example: a component, then channel by channel."""
        # Two uses of each example's key, so two sites.
        which, where = (jax.vmap(functools.partial(prng.site_key, name=n))(keys) for n in ("component", "level"))
        # The component of each pixel if coupled, else of each channel: [B, H, W, 1 or C, 1].
        picked = jax.vmap(jax.random.categorical)(which, self.logits)[..., None]
        noise, drawn = _noise(where, self.loc.shape[1:-1]), []
        for c in range(self.loc.shape[-2]):
            located = self._located_channel(c, [v[..., None] for v in drawn])
            own = picked[..., min(c, picked.shape[-2] - 1), :]
            loc, log_scale = (jnp.take_along_axis(a, own, -1)[..., 0] for a in (located, self.log_scale[..., c, :]))
            drawn.append(_draw(noise[..., c], loc, log_scale))
        return jnp.stack(drawn, -1) / 255.0

    def _located(self, v: jax.Array) -> jax.Array:
        """Returns the locations [B, H, W, C, K] when every channel before is known, v: [B, H, W, C, 1]."""
        known = [v[..., c, :] for c in range(v.shape[-2])]
        return jnp.stack([self._located_channel(c, known) for c in range(len(known))], -2)

    def _located_channel(self, c: int, before: list[jax.Array]) -> jax.Array:
        """Returns the locations of channel c [B, H, W, K]; `before`: levels of those before it, [B, H, W, 1 or K]."""
        loc = self.loc[..., c, :]
        if self.coefficients.shape[-2]:
            for d in range(c):
                # The lower triangle is stored row by row; the level of channel d enters as t_d in [-1, 1].
                loc = loc + self.coefficients[..., c * (c - 1) // 2 + d, :] * (before[d] * (2.0 * HALF) - 1.0)
        return loc


class CategoricalPixels(NamedTuple):
    """A free mass for each gray level of each channel. `logits`: [B, H, W, C, 256]."""

    logits: jax.Array

    def log_prob(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Returns sum log P(v) in nats [B] for x = v / 255."""
        index = level(x).astype(jnp.int32)[..., None]
        return sum_pixels(jnp.take_along_axis(jax.nn.log_softmax(self.logits), index, -1)[..., 0], mask)

    def mean(self) -> jax.Array:
        """Returns E[v] / 255 [B, H, W, C]."""
        levels = jnp.arange(LEVELS, dtype=jnp.float32) / 255.0
        # `highest`, or accelerators would round the factors to 10 bits.
        return jnp.dot(jax.nn.softmax(self.logits), levels, precision="highest")

    def mode(self) -> jax.Array:
        """Returns the most probable level [B, H, W, C]."""
        return jnp.argmax(self.logits, -1).astype(jnp.float32) / 255.0

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns gray levels v / 255 [B, H, W, C], from one key per example."""
        return jax.vmap(jax.random.categorical)(keys, self.logits).astype(jnp.float32) / 255.0


@dataclass(frozen=True)
class GrayLevels(SeparatePixels):
    """Base of the likelihoods of 256 gray levels."""

    # Masses of stored bytes: bits per dimension are exact without dequantization.
    levels: ClassVar[int | None] = LEVELS

    @property
    def support(self) -> tuple[float, float]:
        return (0.0, 1.0)


@dataclass(frozen=True)
class Logistic256(GrayLevels):
    """Discretized logistic over 256 gray levels, one trained scale or one per pixel (arXiv:1606.04934).

    Example:
      >>> x = jnp.arange(256.0).reshape(256, 1, 1, 1) / 255.0  # every gray level
      >>> p_x = Logistic256().build(jnp.zeros_like(x), Logistic256().init_params(), {})
      >>> round(float(jnp.sum(jnp.exp(p_x.log_prob(x)))), 4)  # their masses
      1.0
    """

    pixelwise: bool = False
    """The decoder gives the log scale of every pixel; False trains one for all."""
    init_scale: Annotated[float, Positive()] = 0.2
    """Scale at the start where there is one for all, in units of black = -1 to white = 1."""
    min_log_scale: float = -7.0
    """Soft floor of the log scale: below it one level has all the mass already."""

    def outputs(self, channels: int) -> int:
        return 2 * channels if self.pixelwise else channels

    def init_params(self):
        return {} if self.pixelwise else {"log_scale": jnp.asarray(np.log(self.init_scale), jnp.float32)}

    def build(self, out, params, state) -> LogisticPixels:
        del state
        # out: [B, H, W, 2C] with a scale for each pixel, else [B, H, W, C].
        loc, raw = jnp.split(out, 2, axis=-1) if self.pixelwise else (out, params["log_scale"])
        return LogisticPixels(loc, soft_floor(raw, self.min_log_scale))


@dataclass(frozen=True)
class LogisticMixture(GrayLevels):
    """Mixture of discretized logistics, green linear in red and blue in both as in PixelCNN++ (arXiv:1701.05517).

    Example:
      >>> x = jnp.arange(256.0).reshape(256, 1, 1, 1) / 255.0  # every gray level
      >>> likelihood = LogisticMixture(components=2)
      >>> p_x = likelihood.build(jnp.zeros((256, 1, 1, likelihood.outputs(1))), {}, {})
      >>> round(float(jnp.sum(jnp.exp(p_x.log_prob(x)))), 4)  # their masses
      1.0
    """

    components: Annotated[int, AtLeast(1)] = 5
    """Logistics in the mixture of a pixel."""
    coupled: bool = True
    """One component for all channels of a pixel, each linear in those before; False: every channel alone."""
    min_log_scale: float = -7.0
    """Soft floor of the log scale: below it one level has all the mass already."""

    def takes_mask(self, channels: int) -> bool:
        # The component of a pixel, and where each of its channels lies, follow from all channels before.
        return channels == 1 or not self.coupled

    def outputs(self, channels: int) -> int:
        coupled = 1 + 2 * channels + channels * (channels - 1) // 2
        return self.components * (coupled if self.coupled else 3 * channels)

    def build(self, out, params, state) -> LogisticMixturePixels:
        del params, state
        # Channels C are not passed: they follow from the number of outputs.
        channels = next(c for c in itertools.count(1) if self.outputs(c) >= out.shape[-1])
        mixtures = 1 if self.coupled else channels
        # [B, H, W, outputs / K, K]: C locations, C log scales, 1 or C rows of weights, and the coefficients.
        parts = out.reshape(*out.shape[:-1], -1, self.components)
        loc, raw, logits, rest = jnp.split(parts, [channels, 2 * channels, 2 * channels + mixtures], axis=-2)
        # Coefficients are kept in (-1, 1) by tanh, as in PixelCNN++.
        return LogisticMixturePixels(loc, soft_floor(raw, self.min_log_scale), logits, jnp.tanh(rest))


@dataclass(frozen=True)
class Categorical256(GrayLevels):
    """A free categorical over 256 gray levels; wide: 256 outputs per channel (arXiv:1601.06759).

    Example:
      >>> p_x = Categorical256().build(jnp.zeros((1, 1, 1, 256)), {}, {})
      >>> round(float(p_x.log_prob(jnp.ones((1, 1, 1, 1)))[0]), 4)  # -ln 256
      -5.5452
    """

    def outputs(self, channels: int) -> int:
        return LEVELS * channels

    def build(self, out, params, state) -> CategoricalPixels:
        del params, state
        # [B, H, W, 256 C] to [B, H, W, C, 256].
        return CategoricalPixels(out.reshape(*out.shape[:-1], -1, LEVELS))
