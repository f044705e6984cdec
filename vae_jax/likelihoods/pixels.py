"""Likelihood configs: how decoder outputs become a distribution over images.

Each is a frozen dataclass that is also the option group of the command line. A likelihood may own trained parameters
(`init_params`) and running state (`init_state`); most own neither. `fit` is called in training, `build` elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from vae_jax import collectives
from vae_jax.likelihoods.decoded import BernoulliPixels, GaussianPixels
from vae_jax.options.needs import Need
from vae_jax.options.ranges import Positive, Share


@dataclass(frozen=True)
class PixelLikelihood:
    """Base of the likelihood configs: no parameters, no state, one output per channel.

    Attributes:
      support: the range of x, checked once against the data before training.
      closed: whether the ends of `support` belong to it.
      levels: number of values of x, evenly spaced over [0, 1], that have a mass; None for a density.
      normalized: whether it is a density (or mass function) of x; False for losses such as MS-SSIM.
      counts: whether x are counts: whole numbers, checked once against the data before training.
    """

    normalized: ClassVar[bool] = True
    counts: ClassVar[bool] = False
    closed: ClassVar[bool] = True
    levels: ClassVar[int | None] = None

    @property
    def support(self) -> tuple[float, float]:
        return (-math.inf, math.inf)

    def cell_width(self, levels: int | None, dequantized: bool) -> float | None:
        """Returns the volume per dimension of one value of discrete data, where bits per dimension mean something.

        Args:
          levels: number of values of a pixel before dequantization; None for real numbers.
          dequantized: whether uniform noise of a 256th was added.

        Returns:
          1 for masses of the data's values, 1/256 for a density of dequantized data, else None.
        """
        if not self.normalized or levels is None:
            return None
        # A mass function: bits per dimension are exact for data of its own values, without added noise.
        if self.levels is not None:
            return 1.0 if not dequantized and levels <= self.levels else None
        # Noise u fills a cell of 1/256: E[log p(v + u)] + log(1/256) is at most the log mass of level v.
        return 1.0 / 256.0 if dequantized else None

    @property
    def takes_weight(self) -> bool:
        """Says whether `fit` makes statistics of the batch, which the weights of its examples enter."""
        return False

    def takes_mask(self, channels: int) -> bool:
        """Says whether `log_prob` and `fit` take a mask of what is observed, of data of so many channels.

        False where the entries of an example depend on each other given z, so that those that are missing cannot be
        left out of a sum; and for classes that do not say.
        """
        del channels
        return False

    def gives(self) -> frozenset[str]:
        """Returns the properties that other components may need (see `options.needs`)."""
        given = {"normalized": self.normalized, "no running state": not self.init_state()}
        return frozenset(name for name, it_does in given.items() if it_does)

    def outputs(self, channels: int) -> int:
        """Returns the number of decoder output channels for images of `channels` channels."""
        return channels

    def init_params(self) -> dict[str, jax.Array]:
        """Returns the trained parameters, where these do not depend on the shape of the data."""
        return {}

    def params_for(self, shape: tuple[int, ...]) -> dict[str, jax.Array]:
        """Returns the trained parameters for examples of this shape; define it where they have one number per entry."""
        del shape
        return self.init_params()

    def init_state(self) -> dict[str, jax.Array]:
        """Returns the running state."""
        return {}

    def seen(self, x: jax.Array) -> jax.Array:
        """Returns x [B, *shape] as the encoder sees it."""
        return x

    def matched(self, mean: Any, x: Any) -> Any:
        """Returns a mean of p(x|z), [B, *shape], as it is compared with x: of the same total, if p is given that."""
        del x
        return mean

    def build(self, out: jax.Array, params: Any, state: Any) -> Any:
        """Returns p(x|z) outside training.

        Args:
          out: decoder outputs [B, H, W, outputs(channels)], float32.
          params: trained parameters, as of `params_for`.
          state: running state, as of `init_state`.
        """
        raise TypeError(f"{type(self).__name__} must define build")

    def fit(
        self,
        out: jax.Array,
        x: jax.Array,
        params: Any,
        state: Any,
        axis_name: str | None,
        mask: jax.Array | None = None,
        weight: jax.Array | None = None,
    ) -> tuple[Any, Any]:
        """Returns (p(x|z), new state) in training, when x is known.

        Args:
          out: decoder outputs [B, H, W, outputs(channels)], float32.
          x: data [B, H, W, C].
          params: trained parameters.
          state: running state.
          axis_name: mapped axis over which batch statistics are taken; None in the global view.
          mask: bool [B, H, W, C], True where x is observed; given only to a likelihood that takes one.
          weight: of the loss of each example, [B]; given only where `takes_weight`. A statistic of the batch counts an
            example of weight 2 twice.

        Returns:
          a decoded distribution as of `build`, and the running state after this batch.
        """
        # Most likelihoods learn from x by gradient alone.
        del x, axis_name, mask, weight
        return self.build(out, params, state), state


@dataclass(frozen=True)
class SeparatePixels(PixelLikelihood):
    """Base of the likelihoods whose entries are independent given z: what is missing is left out of the sum."""

    def takes_mask(self, channels: int) -> bool:
        del channels
        return True


@dataclass(frozen=True)
class Bernoulli(SeparatePixels):
    """Bernoulli pixels on logits; data in [0, 1].

    Example:
      >>> p_x = Bernoulli().build(jnp.zeros((1, 1, 1, 1)), {}, {})
      >>> round(float(p_x.log_prob(jnp.ones((1, 1, 1, 1)))[0]), 4)  # ln 1/2
      -0.6931
    """

    # Gray levels are scored as well, by cross entropy, which is no mass: bits per dimension are of binary data only.
    levels: ClassVar[int | None] = 2

    @property
    def support(self) -> tuple[float, float]:
        return (0.0, 1.0)

    def build(self, out, params, state) -> BernoulliPixels:
        del params, state
        return BernoulliPixels(out)


@dataclass(frozen=True)
class Gaussian(SeparatePixels):
    """Gaussian pixels of one fixed standard deviation.

    Example:
      >>> p_x = Gaussian(std=1.0).build(jnp.zeros((1, 1, 1, 1)), {}, {})
      >>> round(float(p_x.log_prob(jnp.zeros((1, 1, 1, 1)))[0]), 4)  # -ln(2 pi) / 2
      -0.9189
    """

    std: Annotated[float, Positive()] = 1.0
    """Standard deviation of a pixel, in units of the data (which lie in [0, 1])."""
    center: float = 0.0
    """Value that is 0 to encoder and decoder, as 0.5 where pixels in [-0.5, 0.5] are requested; 0 for a decoder that
    reads x."""

    def needs(self) -> tuple[Need, ...]:
        """Returns what other components must give (see `options.needs`)."""
        # A decoder that reads x does so in units of its own, in which unknown pixels have a value.
        return (Need("network", ("one pass",), fix=("model.likelihood.center", 0)),) if self.center else ()

    def seen(self, x: jax.Array) -> jax.Array:
        return x - self.center if self.center else x

    def build(self, out, params, state) -> GaussianPixels:
        del params, state
        # A scalar, which broadcasts against images of any size.
        mean = out + self.center if self.center else out
        return GaussianPixels(mean, jnp.full((), math.log(self.std), jnp.float32))


@dataclass(frozen=True)
class GaussianLearned(SeparatePixels):
    """Gaussian pixels; one log standard deviation for all pixels, trained by gradient (arXiv:2006.13202, sec. 3).

    Example:
      >>> likelihood = GaussianLearned(init_std=1.0, min_log_std=-60.0)
      >>> p_x = likelihood.build(jnp.zeros((1, 1, 1, 1)), likelihood.init_params(), {})
      >>> round(float(p_x.log_prob(jnp.ones((1, 1, 1, 1)))[0]), 4)  # -(1 + ln(2 pi)) / 2
      -1.4189
    """

    init_std: Annotated[float, Positive()] = 1.0
    """Standard deviation at the start."""
    min_log_std: float = -6.0
    """Soft floor of the log standard deviation, so that a perfect pixel cannot blow the density up."""

    def init_params(self):
        return {"log_std": jnp.asarray(math.log(self.init_std), jnp.float32)}

    def build(self, out, params, state) -> GaussianPixels:
        del state
        return GaussianPixels(out, soft_floor(params["log_std"], self.min_log_std))


@dataclass(frozen=True)
class GaussianPixelwise(SeparatePixels):
    """Gaussian pixels; the decoder gives the mean and the log standard deviation of every pixel.

    Example:
      >>> likelihood = GaussianPixelwise(min_log_std=-60.0)
      >>> p_x = likelihood.build(jnp.array([[[[0.0, math.log(2.0)]]]]), {}, {})  # mean 0, standard deviation 2
      >>> round(float(p_x.log_prob(jnp.zeros((1, 1, 1, 1)))[0]), 4)  # -ln 2 - ln(2 pi) / 2
      -1.6121
    """

    min_log_std: float = -6.0
    """Soft floor of the log standard deviation, so that a perfect pixel cannot blow the density up."""

    def outputs(self, channels: int) -> int:
        return 2 * channels

    def build(self, out, params, state) -> GaussianPixels:
        del params, state
        # out: [B, H, W, 2C], all means before all log standard deviations.
        loc, log_std = jnp.split(out, 2, axis=-1)
        return GaussianPixels(loc, soft_floor(log_std, self.min_log_std))


@dataclass(frozen=True)
class GaussianOptimal(SeparatePixels):
    """sigma-VAE: the variance that maximizes the likelihood, sigma*^2 = mean squared error (arXiv:2006.13202, eq. 5).

    With it -log p(x|z) of a batch is D/2 (log 2 pi sigma*^2 + 1) per example, D pixels, on average.

    In training sigma* is the one of the global batch; its gradient may be stopped because the likelihood is stationary
    in it. Outside training x must not choose its own variance, or the number is no likelihood: there the running mean
    of sigma*^2 is used.

    Example:
      >>> likelihood = GaussianOptimal()
      >>> out, x = jnp.zeros((1, 1, 2, 1)), jnp.ones((1, 1, 2, 1))  # squared error 1: sigma* = 1
      >>> p_x, state = likelihood.fit(out, x, {}, likelihood.init_state(), None)
      >>> round(float(p_x.log_prob(x)[0]), 4)  # two pixels of -(1 + ln(2 pi)) / 2
      -2.8379
    """

    decay: Annotated[float, Share()] = 0.99
    """Decay of the running mean of sigma*^2, per step."""
    min_log_std: float = -6.0
    """Floor of the log standard deviation. Hard, as no gradient passes it: above it sigma* is exactly optimal."""

    @property
    def takes_weight(self) -> bool:
        return True

    def init_state(self):
        # The running mean is mse / weight: both start at 0, so the start has no part in it.
        return {"mse": jnp.zeros((), jnp.float32), "weight": jnp.zeros((), jnp.float32)}

    def build(self, out, params, state) -> GaussianPixels:
        del params
        # Before the first update there is no estimate; 1 stands in for it.
        variance = jnp.where(state["weight"] > 0, state["mse"] / jnp.maximum(state["weight"], 1e-12), 1.0)
        return GaussianPixels(out, self._log_std(variance))

    def fit(self, out, x, params, state, axis_name, mask=None, weight=None):
        del params
        error, counted = jnp.square(out - x), mask
        if mask is not None:
            error = jnp.where(mask, error, 0.0)
        if weight is not None:
            each = jnp.expand_dims(weight, range(1, x.ndim))  # [B, 1, ...]
            error, counted = error * each, jnp.broadcast_to(each, x.shape) if mask is None else mask * each
        # Of the global batch: a variance per device would make the loss depend on the number of devices.
        mse = collectives.pmean(jax.lax.stop_gradient(jnp.mean(error)), axis_name)
        if counted is not None:
            # Over what is observed, or by weight. The quotient of two whole numbers is exactly 1 where that is all.
            count = collectives.pmean(jnp.sum(counted, dtype=jnp.float32), axis_name)
            mse = mse * (x.size / jnp.where(count > 0, count, 1.0))
        # A batch counts in the running mean as much as its examples do in the loss.
        moves = (1 - self.decay) * (1.0 if weight is None else collectives.pmean(jnp.mean(weight), axis_name))
        new = {
            "mse": self.decay * state["mse"] + moves * mse,
            "weight": self.decay * state["weight"] + moves,
        }
        if counted is not None:  # a batch of which nothing counts says nothing of the variance
            new = {name: jnp.where(count > 0, value, state[name]) for name, value in new.items()}
        return GaussianPixels(out, self._log_std(mse)), new

    def _log_std(self, variance: jax.Array) -> jax.Array:
        # Floored before the log, or a perfect batch would give minus infinity.
        return 0.5 * jnp.log(jnp.maximum(variance, math.exp(2.0 * self.min_log_std)))


def soft_floor(x: jax.Array, floor: float) -> jax.Array:
    """Returns floor + softplus(x - floor): x where x is well above the floor, smooth and never below it."""
    return floor + jax.nn.softplus(x - floor)
