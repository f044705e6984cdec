"""Densities of pixels beside the Gaussian: on [0, 1], on (0, 1), and with heavier tails on the real line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import betaln, gammaln

from vae_jax import prng
from vae_jax.likelihoods.decoded import WIDEST, sum_pixels
from vae_jax.likelihoods.pixels import SeparatePixels, soft_floor
from vae_jax.options.ranges import Above, Positive

# log(sinh a / a) = sum_n LOG_SINHC[n] a^(2n + 2), from the Bernoulli numbers; the last term is 2e-7 at a = 1.
LOG_SINHC = (1 / 6, -1 / 180, 1 / 2835, -1 / 37800, 1 / 467775, -691 / 3831077250)
# The dequantized gray levels (v + u) / 256 lie between these two; in float32 the last u of 255 rounds to 1.
LEAST, MOST = 2.0**-25, 1.0 - 2.0**-24


def log_sinhc(a: jax.Array) -> jax.Array:
    """Returns log(sinh(a) / a), elementwise: 0 at 0, |a| - log 2|a| far out; value and gradient exact everywhere."""
    # Below 1 the difference of large terms would lose digits, at 0 all of them; `where` before `log` keeps the branch
    # that is not taken from making a NaN gradient.
    size = jnp.abs(a)
    near = size < 1.0
    square, series = jnp.square(jnp.where(near, a, 0.0)), jnp.zeros_like(a)
    # Horner's rule in a^2, highest power first.
    for coefficient in reversed(LOG_SINHC):
        series = (series + coefficient) * square
    far = jnp.where(near, 1.0, size)
    # log(sinh(a) / a) = |a| + log((1 - e^(-2|a|)) / 2|a|), where no term overflows.
    return jnp.where(near, series, far + jnp.log((1.0 - jnp.exp(-2.0 * far)) / (2.0 * far)))


def langevin(a: jax.Array) -> jax.Array:
    """Returns coth(a) - 1 / a, the derivative of `log_sinhc`, elementwise."""
    near = jnp.abs(a) < 1.0
    square, series = jnp.square(jnp.where(near, a, 0.0)), jnp.zeros_like(a)
    # The series of `log_sinhc` term by term, (2n + 2) c_n a^(2n + 1); the common factor a comes in last.
    for n in reversed(range(1, len(LOG_SINHC))):
        series = (series + (2 * n + 2) * LOG_SINHC[n]) * square
    far = jnp.where(near, 1.0, a)
    return jnp.where(near, (series + 2 * LOG_SINHC[0]) * a, 1.0 / jnp.tanh(far) - 1.0 / far)


class ContinuousBernoulliPixels(NamedTuple):
    """p(x) = C l^x (1 - l)^(1 - x) on [0, 1], l = sigmoid(logits). `logits`: [B, H, W, C]."""

    logits: jax.Array

    def log_prob(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Returns sum (x - 1/2) t - log(sinh(t/2) / (t/2)) in nats [B], t = logits: C = t / tanh(t/2)."""
        # The constant C is joined with log(1 - l): alone it is 0 / 0 at t = 0.
        return sum_pixels((x - 0.5) * self.logits - log_sinhc(0.5 * self.logits), mask)

    def mean(self) -> jax.Array:
        """Returns l / (2 l - 1) + 1 / (2 artanh(1 - 2 l)) [B, H, W, C], which is not l."""
        return 0.5 + 0.5 * langevin(0.5 * self.logits)

    def mode(self) -> jax.Array:
        """Returns the end of [0, 1] where the density is larger [B, H, W, C]."""
        return (self.logits > 0).astype(jnp.float32)

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns the inverse distribution function of uniform noise [B, H, W, C], from one key per example."""
        u = prng.uniform(keys, self.logits.shape[1:])
        rate = jnp.maximum(jnp.abs(self.logits), 1e-6)  # flatter than that is uniform to float32
        below = jnp.clip(-jnp.log1p(u * jnp.expm1(-rate)) / rate, 0.0, 1.0)  # density falling from 0
        # Reflected where the density rises: p(x; t) = p(1 - x; -t).
        return jnp.where(self.logits > 0, 1.0 - below, below)


class LaplacePixels(NamedTuple):
    """p(x) = exp(-|x - loc| / s) / 2s. `loc`: [B, H, W, C]; `log_scale` log s broadcasts against it."""

    loc: jax.Array
    log_scale: jax.Array

    def log_prob(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Returns -sum |x - loc| / s + log 2s in nats [B]."""
        return -sum_pixels(jnp.abs(x - self.loc) * jnp.exp(-self.log_scale) + self.log_scale + math.log(2.0), mask)

    def mean(self) -> jax.Array:
        """Returns loc [B, H, W, C]."""
        return self.loc

    def mode(self) -> jax.Array:
        """Returns loc [B, H, W, C]."""
        return self.loc

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns loc + s * (difference of two exponentials) [B, H, W, C], from one key per example."""
        # The difference of two unit exponentials is a unit Laplace. u < 1, so log1p(-u) is finite.
        u = prng.uniform(keys, (2, *self.loc.shape[1:]))
        noise = jnp.log1p(-u[:, 0]) - jnp.log1p(-u[:, 1])
        return self.loc + jnp.exp(jnp.minimum(self.log_scale, WIDEST)) * noise


class StudentTPixels(NamedTuple):
    """Student's t of `df` degrees of freedom, location `loc` [B, H, W, C] and scale exp(`log_scale`)."""

    loc: jax.Array
    log_scale: jax.Array
    df: jax.Array

    def log_prob(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Returns -sum (n + 1)/2 log(1 + t^2/n) + log s + log B(n/2, 1/2) + log(n)/2 in nats [B], t = (x - loc)/s."""
        n = self.df
        # log B(n/2, 1/2) + log(n) / 2 by gammaln, with Gamma(1/2) = sqrt(pi).
        norm = gammaln(0.5 * n) - gammaln(0.5 * n + 0.5) + 0.5 * jnp.log(n * math.pi)
        t = (x - self.loc) * jnp.exp(-self.log_scale)
        return -sum_pixels(0.5 * (n + 1.0) * jnp.log1p(jnp.square(t) / n) + self.log_scale + norm, mask)

    def mean(self) -> jax.Array:
        """Returns loc [B, H, W, C]."""
        return self.loc

    def mode(self) -> jax.Array:
        """Returns loc [B, H, W, C]."""
        return self.loc

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns loc + s * t [B, H, W, C], from one key per example: t by Bailey's polar method (1994)."""
        # t = sqrt(n (u^(-2/n) - 1)) cos(2 pi v). For large n u^(-2/n) is close to 1, and expm1 keeps the difference.
        u = prng.uniform(keys, (2, *self.loc.shape[1:]))
        radius = jnp.sqrt(self.df * jnp.expm1(-2.0 / self.df * jnp.log1p(-u[:, 0])))
        return self.loc + jnp.exp(jnp.minimum(self.log_scale, WIDEST)) * radius * jnp.cos(2 * math.pi * u[:, 1])


class SechPixels(NamedTuple):
    """p(x) = 1 / (pi s cosh((x - loc) / s)), the density of the log-cosh loss. `loc`: [B, H, W, C]."""

    loc: jax.Array
    log_scale: jax.Array

    def log_prob(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Returns -sum log cosh((x - loc) / s) + log(pi s) in nats [B]."""
        # log cosh t = |t| + log1p(e^(-2|t|)) - log 2: cosh itself overflows at |t| = 89 in float32.
        size = jnp.abs(x - self.loc) * jnp.exp(-self.log_scale)
        return -sum_pixels(size + jnp.log1p(jnp.exp(-2.0 * size)) + self.log_scale + math.log(0.5 * math.pi), mask)

    def mean(self) -> jax.Array:
        """Returns loc [B, H, W, C]."""
        return self.loc

    def mode(self) -> jax.Array:
        """Returns loc [B, H, W, C]."""
        return self.loc

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns the inverse distribution function of uniform noise [B, H, W, C], from one key per example."""
        u = prng.uniform(keys, self.loc.shape[1:])
        # F(t) = 1/2 + (2 / pi) artan tanh(t / 2): symmetric, so that neither tail is cut by rounding near pi / 2.
        half = jnp.clip(jnp.tan(0.5 * math.pi * (u - 0.5)), -MOST, MOST)
        return self.loc + jnp.exp(jnp.minimum(self.log_scale, WIDEST)) * 2.0 * jnp.arctanh(half)


class BetaPixels(NamedTuple):
    """p(x) = x^(a - 1) (1 - x)^(b - 1) / B(a, b) on the open (0, 1). `a`, `b`: [B, H, W, C], positive."""

    a: jax.Array
    b: jax.Array

    def log_prob(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Returns sum (a - 1) log x + (b - 1) log(1 - x) - log B(a, b) in nats [B].

        An x of exactly 0 or 1 has no density; it can only be a dequantized gray level that float32 rounded, and counts
        as the nearest value inside.
        """
        x = jnp.clip(x, LEAST, MOST)
        return sum_pixels((self.a - 1.0) * jnp.log(x) + (self.b - 1.0) * jnp.log1p(-x) - betaln(self.a, self.b), mask)

    def mean(self) -> jax.Array:
        """Returns a / (a + b) [B, H, W, C]."""
        return self.a / (self.a + self.b)

    def mode(self) -> jax.Array:
        """Returns (a - 1) / (a + b - 2), or the end where the density is infinite (the nearer to the mean of two)."""
        a, b = self.a - 1.0, self.b - 1.0
        # Both shapes above 1 have their maximum inside; the inner `where` avoids 0 / 0 elsewhere.
        inner = (a > 0) & (b > 0)
        return jnp.where(inner, a / jnp.where(inner, a + b, 1.0), (a > b).astype(jnp.float32))

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns images in (0, 1) [B, H, W, C], from one key per example."""
        drawn = jax.vmap(jax.random.beta)(keys, self.a, self.b)
        # Draws with small shapes round to 0 or 1 in float32, where the density is not defined.
        return jnp.clip(drawn, LEAST, MOST)


@dataclass(frozen=True)
class ContinuousBernoulli(SeparatePixels):
    """Continuous Bernoulli, a density on [0, 1] where cross entropy is none (arXiv:1907.06845).

    Example:
      >>> p_x = ContinuousBernoulli().build(jnp.full((1, 1, 1, 1), 2.0), {}, {})
      >>> round(float(p_x.log_prob(jnp.ones((1, 1, 1, 1)))[0]), 4)  # 1 - ln sinh 1
      0.8386
    """

    @property
    def support(self) -> tuple[float, float]:
        return (0.0, 1.0)

    def build(self, out, params, state) -> ContinuousBernoulliPixels:
        del params, state
        # Outputs are the logits of l, which is not the mean.
        return ContinuousBernoulliPixels(out)


@dataclass(frozen=True)
class LocationScale(SeparatePixels):
    """Base of the densities with a location for each pixel and one scale for all."""

    init_scale: Annotated[float, Positive()] = 0.2
    """Scale of a pixel at the start, in units of the data (which lie in [0, 1])."""
    learned: bool = True
    """Train the log of the scale by gradient; False keeps it."""
    min_log_scale: float = -6.0
    """Soft floor of a trained log scale, so that a perfect pixel cannot blow the density up."""

    def init_params(self):
        # The logarithm is trained, so that no step can make the scale negative.
        return {"log_scale": jnp.asarray(math.log(self.init_scale), jnp.float32)} if self.learned else {}

    def log_scale(self, params) -> jax.Array:
        """Returns the log of the scale, a scalar."""
        # A hard floor would have no gradient, and a scale below it would never come back.
        if self.learned:
            return soft_floor(params["log_scale"], self.min_log_scale)
        return jnp.asarray(math.log(self.init_scale), jnp.float32)


@dataclass(frozen=True)
class Laplace(LocationScale):
    """Laplace pixels: absolute error, with its normalizer (arXiv:1511.08861).

    Example:
      >>> likelihood = Laplace(init_scale=1.0, learned=False)
      >>> p_x = likelihood.build(jnp.zeros((1, 1, 1, 1)), {}, {})
      >>> round(float(p_x.log_prob(jnp.ones((1, 1, 1, 1)))[0]), 4)  # -1 - ln 2
      -1.6931
    """

    def build(self, out, params, state) -> LaplacePixels:
        del state
        return LaplacePixels(out, self.log_scale(params))


@dataclass(frozen=True)
class StudentT(LocationScale):
    """Student-t pixels: squared error near, its logarithm far, robust to outliers (Takahashi et al. 2018).

    Example:
      >>> likelihood = StudentT(init_scale=1.0, learned=False, df=4.0)
      >>> p_x = likelihood.build(jnp.zeros((1, 1, 1, 1)), {}, {})
      >>> round(float(p_x.log_prob(jnp.zeros((1, 1, 1, 1)))[0]), 4)  # ln 3/8
      -0.9808
    """

    df: Annotated[float, Above(1)] = 4.0
    """Degrees of freedom: the smaller, the heavier the tails; above 1, where the mean exists."""

    def build(self, out, params, state) -> StudentTPixels:
        del state
        return StudentTPixels(out, self.log_scale(params), jnp.asarray(self.df, jnp.float32))


@dataclass(frozen=True)
class LogCosh(LocationScale):
    """Hyperbolic secant pixels: the log-cosh loss, squared error near and absolute far (Chen et al. 2018).

    Example:
      >>> likelihood = LogCosh(init_scale=1.0, learned=False)
      >>> p_x = likelihood.build(jnp.zeros((1, 1, 1, 1)), {}, {})
      >>> round(float(p_x.log_prob(jnp.zeros((1, 1, 1, 1)))[0]), 4)  # -ln pi
      -1.1447
    """

    def build(self, out, params, state) -> SechPixels:
        del state
        return SechPixels(out, self.log_scale(params))


@dataclass(frozen=True)
class BetaDensity(SeparatePixels):
    """Beta pixels, both shapes from the decoder; data in the open (0, 1), e.g. dequantized (arXiv:1907.06845).

    Example:
      >>> out = jnp.array([[[[math.log(math.e - 1.0), -100.0]]]])  # softplus: 1 and 0
      >>> p_x = BetaDensity(min_shape=1.0).build(out, {}, {})  # Beta(2, 1): p(x) = 2 x
      >>> round(float(p_x.log_prob(jnp.full((1, 1, 1, 1), 0.25))[0]), 4)  # ln 1/2
      -0.6931
    """

    # At 0 and 1 the density is 0 or infinite: data that reach the ends are refused before training.
    closed: ClassVar[bool] = False

    min_shape: Annotated[float, Positive()] = 0.1
    """Floor of both shapes a and b; below 1 the density may rise without bound towards black or white."""

    @property
    def support(self) -> tuple[float, float]:
        return (0.0, 1.0)

    def outputs(self, channels: int) -> int:
        return 2 * channels

    def build(self, out, params, state) -> BetaPixels:
        del params, state
        # out: [B, H, W, 2C], all a before all b.
        a, b = jnp.split(self.min_shape + jax.nn.softplus(out), 2, axis=-1)
        return BetaPixels(a, b)
