"""Diffusion of real latents in the form of EDM (arXiv:2206.00364): x_sigma = x + sigma e, D(x_sigma; sigma) = E[x]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import prng
from vae_jax.errors import InputError, option
from vae_jax.models.stage2 import statistics
from vae_jax.models.stage2.base import Around
from vae_jax.models.stage2.continuous import Continuous
from vae_jax.models.stage2.ode import Field, integrate
from vae_jax.options.ranges import Positive

_RHO = 7.0  # of the noise levels: arXiv:2206.00364, table 1


class Preconditioning(NamedTuple):
    """D(x; sigma) = skip x + out F(into x, noise), each [B]; inputs and targets of F have variance 1 at every sigma."""

    skip: jax.Array
    out: jax.Array
    into: jax.Array
    noise: jax.Array


def precondition(sigma: jax.Array) -> Preconditioning:
    """Returns the factors for data of variance 1 (arXiv:2206.00364, table 1)."""
    # Variance of x + sigma e.
    total = 1.0 + jnp.square(sigma)
    return Preconditioning(1.0 / total, sigma / jnp.sqrt(total), 1.0 / jnp.sqrt(total), 0.25 * jnp.log(sigma))


def denoiser(network: Field) -> Field:
    """Returns D of a network F."""
    return partial(_denoised, network)


def _denoised(network: Field, x: jax.Array, sigma: jax.Array) -> jax.Array:
    # At low sigma D mostly passes x on, and F adds a little; at high sigma all comes from F.
    c = precondition(sigma)
    return c.skip[:, None] * x + c.out[:, None] * network(c.into[:, None] * x, c.noise)


def edm_loss(denoise: Field, x: jax.Array, sigma: jax.Array, noise: jax.Array) -> jax.Array:
    """Returns the mean squared error of F in terms of D: (1 + 1/sigma^2) mean (D(x + sigma e; sigma) - x)^2.

    Args:
      denoise: D.
      x: data of variance 1, [B, n].
      sigma: noise levels [B].
      noise: e, standard normal [B, n].

    Returns:
      float32 [B].
    """
    # The weight is 1 / out^2: D errs by `out` times what F errs.
    error = jnp.mean(jnp.square(denoise(x + sigma[:, None] * noise, sigma) - x), -1)
    return (1.0 + 1.0 / jnp.square(sigma)) * error


def noise_levels(steps: int, low: float, high: float) -> jax.Array:
    """Returns the levels from `high` to `low`, [steps], even in sigma^(1/7)."""
    # In float64: powers of seven lose digits of the lowest levels.
    share = np.linspace(0.0, 1.0, steps)
    # Most levels are low ones, where the path of a sample bends most.
    ends = high ** (1 / _RHO), low ** (1 / _RHO)
    return jnp.asarray((ends[0] + share * (ends[1] - ends[0])) ** _RHO, jnp.float32)


def edm_sample(denoise: Field, noise: jax.Array, levels: jax.Array) -> jax.Array:
    """Returns samples of noise: Heun steps of dx/dsigma = (x - D(x; sigma)) / sigma, and at last D itself.

    The last is the Euler step from the lowest level to 0 (arXiv:2206.00364, algorithm 1).

    Args:
      denoise: D.
      noise: standard normal [B, n]; it is scaled by the first level.
      levels: of `noise_levels`; 2 N - 1 calls of D for N of them.
    """
    x = integrate(partial(_slope, denoise), levels[0] * noise, levels, "heun")
    # The slope divides by sigma; D at the lowest level avoids the 0 at the end.
    return denoise(x, jnp.broadcast_to(levels[-1], x.shape[:1]))


def _slope(denoise: Field, x: jax.Array, sigma: jax.Array) -> jax.Array:
    """Returns dx/dsigma of the probability flow, [B, n]."""
    return (x - denoise(x, sigma)) / sigma[:, None]


def _log_slope(denoise: Field, x: jax.Array, s: jax.Array) -> jax.Array:
    """Returns dx/ds of the same flow in s = log sigma, [B, n]."""
    return x - denoise(x, jnp.exp(s))


@dataclass(frozen=True)
class Diffusion(Continuous):
    """EDM: a network denoises latents at all noise levels; samples follow the probability flow (arXiv:2206.00364).

    The loss weighs levels by what is learned there: it is no bound on -log p(z), and 1 for a network that gives zeros
    on normalized data. `rate` solves the flow from `sigma_min` to `sigma_max`: it is the density of latents with noise
    of `sigma_min` standard deviations, the lowest level of samples before the last one is denoised.
    """

    log_sigma_mean: float = -0.5
    """Mean of log sigma in training; the paper's -1.2 for data of standard deviation 1/2, moved to 1."""
    log_sigma_std: Annotated[float, Positive()] = 1.2
    """Standard deviation of log sigma in training."""
    sigma_min: Annotated[float, Positive()] = 0.002
    """Lowest noise level of samples and densities, in standard deviations of the latents."""
    sigma_max: Annotated[float, Positive()] = 80.0
    """Highest noise level, from which samples start; latents are lost in it."""

    def check(self, around: Around) -> None:
        super().check(around)
        # Levels of the sampler fall from the highest to the lowest; between equal ones there is no flow.
        if self.sigma_min >= self.sigma_max:
            raise InputError(
                f"model.generator.sigma_min: {self.sigma_min} is not below model.generator.sigma_max, "
                f"{self.sigma_max}; use {option('model.generator.sigma_min', self.sigma_max / 1000)}"
            )

    def loss(
        self, params: Any, keys: jax.Array, z: jax.Array, cond: jax.Array | None, around: Around, train: bool
    ) -> tuple[jax.Array, Mapping[str, jax.Array]]:
        # Preconditioning assumes variance 1 in every dimension.
        x = statistics.normalized(z, around.stats)
        # One level per example, most of them where neither noise nor data hide all that could be learned.
        sigma = jnp.exp(self.log_sigma_mean + self.log_sigma_std * prng.normal(prng.site_keys(keys, "level"), ()))
        network = self.network(params, cond, around, keys if train else None)
        return edm_loss(denoiser(network), x, sigma, prng.normal(prng.site_keys(keys, "noise"), x.shape[1:])), {}

    def flow(self, network: Field) -> tuple[Field, tuple[float, float], float]:
        # In s = log sigma the flow dx/ds = x - D(x; e^s) is as smooth at the lowest level as at the highest.
        # Python floats: the interval is static, only points and times are traced.
        span = float(np.log(self.sigma_min)), float(np.log(self.sigma_max))
        return partial(_log_slope, denoiser(network)), span, self.sigma_max

    def solve(self, network: Field, noise: jax.Array, steps: int) -> jax.Array:
        return edm_sample(denoiser(network), noise, noise_levels(steps, self.sigma_min, self.sigma_max))
