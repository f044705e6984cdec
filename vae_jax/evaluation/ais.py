"""Annealed importance sampling with Hamiltonian transitions: log p(x) from above and below (arXiv:1611.04273).

The path of unnormalized densities f_t(z) = p(z) p(x|z)^b_t leads from the prior (b = 0) to the joint (b = 1). A chain
starts at z ~ f_0, is weighed by the next density and moved by a transition that keeps it:

    log w = sum_t (b_{t+1} - b_t) log p(x|z_t),    E[w] = p(x),    E[log mean_c w_c] <= log p(x).

The same chain run backwards from an exact sample of the posterior has E[w] = 1 / p(x): the other side of the sandwich
(BDMC, arXiv:1511.02543). In memory are the codes of the chains, whatever the number of temperatures.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import prng
from vae_jax.errors import InputError

Density = Callable[[jax.Array], jax.Array]
TARGET = 0.65  # acceptance that the step size is led to (arXiv:1611.04273, sec. 5)
RATE = 0.2  # of the step size's logarithm, per unit of acceptance, while it is led there
LEAST, MOST = 64, 128  # moves of the run that finds the step sizes


class Annealed(NamedTuple):
    """What the chains found.

    Attributes:
      log_weight: log w of each chain, nats [C, B].
      acceptance: mean probability that a move was accepted, over chains and temperatures [B].
    """

    log_weight: jax.Array
    acceptance: jax.Array


class Steps(NamedTuple):
    """Step sizes along the path: their logarithm [W, B] at the temperatures `at` [W], which rise."""

    at: jax.Array
    log_size: jax.Array

    def __call__(self, temperature: jax.Array) -> jax.Array:
        """Returns the step sizes [B] of one temperature, linear in the logarithm between two."""
        last = len(self.at) - 1
        # The temperature as a fractional row of the table; beyond its ends the outermost row holds.
        place = jnp.interp(temperature, self.at, jnp.arange(last + 1.0))
        low = jnp.floor(place).astype(jnp.int32)
        part = place - low
        return jnp.exp((1.0 - part) * self.log_size[low] + part * self.log_size[jnp.minimum(low + 1, last)])


class _Place(NamedTuple):
    """Where the chains are: codes [C, B, D], both log densities [C, B], and their gradients."""

    z: jax.Array
    prior: jax.Array
    likelihood: jax.Array
    prior_slope: jax.Array
    likelihood_slope: jax.Array


def sigmoid_temperatures(n: int, sharpness: float = 4.0) -> np.ndarray:
    """Returns n temperatures from 0 to 1, float64 [n]: s((2t / (n - 1) - 1) sharpness), s the logistic, stretched.

    They are dense at both ends of the path (arXiv:1611.04273, sec. 5).

    Raises:
      InputError: fewer than two.
    """
    if n < 2:
        raise InputError(f"temperatures: {n} is out of range; it must be 2 or more, the prior and the joint")
    # Stretched to end at exactly 0 and 1, or the path would miss the prior and the joint by a little.
    raw = 1.0 / (1.0 + np.exp(-sharpness * np.linspace(-1.0, 1.0, n)))
    return np.clip((raw - raw[0]) / (raw[-1] - raw[0]), 0.0, 1.0)


def ais(
    log_prior: Density,
    log_likelihood: Density,
    z0: jax.Array,
    temperatures: np.ndarray,
    keys: jax.Array,
    steps: Steps,
    *,
    leapfrog: int = 10,
) -> Annealed:
    """Returns the log weights of chains that are annealed along `temperatures`.

    From 0 to 1 with z0 ~ p(z): E[w] = p(x). From 1 to 0 with z0 ~ p(z|x): E[w] = 1 / p(x). Any two densities on the
    same space suffice: `log_prior` is the first, `log_likelihood` the logarithm of their ratio.

    Args:
      log_prior: z [B, D] -> log p(z) [B]; a row depends on its own z only.
      log_likelihood: z [B, D] -> log p(x|z) [B].
      z0: where the chains start [C, B, D].
      temperatures: b_t [T], on the host; two give plain importance sampling from the first density.
      keys: one per chain and example [C, B].
      steps: step sizes of the moves, which no draw of this run may have decided (see `tune`).
      leapfrog: steps of a move.

    Returns:
      log w and mean acceptance.

    Raises:
      InputError: fewer than two temperatures, no chain, or no leapfrog step.
    """
    b = _checked(temperatures, z0, leapfrog)
    look = _looker(log_prior, log_likelihood)
    # Differences in float64: the betas near 1 would leave them three digits.
    gaps, betas = jnp.asarray(np.diff(b), jnp.float32), jnp.asarray(b[1:-1], jnp.float32)

    # One temperature: weigh by the next density of the path, then move under it. The order is what makes E[w] = p(x).
    # The carry is (place, Kahan sum of log w, sum of acceptances).
    def move(carry: tuple, now: tuple) -> tuple[tuple, None]:
        place, total, accepted = carry
        number, gap, beta = now
        total = _add(total, gap * place.likelihood)
        place, chance = _hamiltonian(look, place, beta, steps(beta), _numbered(keys, number), leapfrog)
        return (place, total, accepted + jnp.mean(chance, 0)), None

    start = look(z0)
    zero = jnp.zeros_like(start.likelihood)
    # T temperatures give T - 1 factors of w and T - 2 moves between them: where a chain ends is of no interest.
    moves = len(b) - 2
    # log w is a pair: the sum, and what rounding has left out of it so far.
    carry = (start, (zero, zero), jnp.zeros(z0.shape[1]))
    (place, total, accepted), _ = jax.lax.scan(move, carry, (jnp.arange(moves), gaps[:-1], betas))
    log_weight, _ = _add(total, gaps[-1] * place.likelihood)
    return Annealed(log_weight, accepted / max(moves, 1))


def tune(
    log_prior: Density,
    log_likelihood: Density,
    z0: jax.Array,
    temperatures: np.ndarray,
    keys: jax.Array,
    *,
    leapfrog: int = 10,
    first: float = 0.3,
) -> Steps:
    """Returns step sizes that each example's chains accept about 65 % of the time, along the way from b = 0 to 1.

    A run of its own, of 64 to 128 moves: a step size that its own chain decides would bias the weights. After every
    move log size += RATE (acceptance - TARGET), the acceptance a mean over chains.

    Args:
      log_prior, log_likelihood, z0, leapfrog: as of `ais`.
      temperatures: those of the run to tune for, rising.
      keys: one per chain and example [C, B], of no other use.
      first: step size at the start.

    Returns:
      step sizes [W, B] at W of 64 to 128 temperatures; calling it interpolates between them.

    Raises:
      InputError: as of `ais`.
    """
    b = _checked(temperatures, z0, leapfrog)
    # As many places on the path of the run, at fractional numbers of its temperatures.
    places = np.linspace(0.0, len(b) - 1.0, min(max(len(b), LEAST), MOST))
    betas = jnp.asarray(np.interp(places, np.arange(len(b)), b), jnp.float32)
    look = _looker(log_prior, log_likelihood)

    def move(carry: tuple, now: tuple) -> tuple[tuple, jax.Array]:
        place, log_size = carry
        number, beta = now
        each = _numbered(keys, number)
        place, chance = _hamiltonian(look, place, beta, jnp.exp(log_size), each, leapfrog)
        # The rate does not decay: the density changes with the temperature, and the step size has to follow.
        log_size = log_size + RATE * (jnp.mean(chance, 0) - TARGET)
        return (place, log_size), log_size

    # One step size per example [B], shared by its chains.
    start = (look(z0), jnp.full(z0.shape[1], np.log(first), jnp.float32))
    _, log_sizes = jax.lax.scan(move, start, (jnp.arange(len(betas)), betas))
    return Steps(betas, log_sizes)


def _checked(temperatures: np.ndarray, z0: jax.Array, leapfrog: int) -> np.ndarray:
    b = np.asarray(temperatures, np.float64)
    if b.ndim != 1 or len(b) < 2:
        raise InputError(f"temperatures: {b.size} is out of range; it must be 2 or more, the prior and the joint")
    if z0.shape[0] < 1:
        raise InputError("chains: 0 is out of range; it must be 1 or more")
    if leapfrog < 1:
        raise InputError(f"leapfrog: {leapfrog} is out of range; it must be 1 or more")
    return b


def _looker(log_prior: Density, log_likelihood: Density) -> Callable[[jax.Array], _Place]:
    """Returns the function that looks at both densities and their slopes, of codes [C, B, D]."""

    def slope(density: Density, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        # A row depends on its own z only, so one pull-back of ones gives the gradient of every row [B, D].
        value, pull = jax.vjp(density, z)
        return value, pull(jnp.ones_like(value))[0]

    def look(z: jax.Array) -> _Place:
        # Mapped over the chains: z is [C, B, D], and the densities take [B, D].
        (p, dp), (x, dx) = (jax.vmap(functools.partial(slope, f))(z) for f in (log_prior, log_likelihood))
        return _Place(z, p, x, dp, dx)

    return look


def _hamiltonian(
    look: Callable[[jax.Array], _Place], old: _Place, beta: jax.Array, size: jax.Array, keys: jax.Array, leapfrog: int
) -> tuple[_Place, jax.Array]:
    """Returns the chains after one move that keeps p(z) p(x|z)^beta, and the probability of each to be accepted.

    Leapfrog steps of H(z, v) = -log p(z) - beta log p(x|z) + |v|^2 / 2, then accept or reject (Neal 2011).

    Args:
      look: of `_looker`.
      old: where the chains are.
      beta: temperature, a scalar.
      size: step sizes [B].
      keys: [C, B], consumed.
      leapfrog: steps.
    """
    # [1, B, 1], against codes [C, B, D].
    step = size[None, :, None]

    def force(at: _Place) -> jax.Array:
        return at.prior_slope + beta * at.likelihood_slope

    # -H(z, v) up to a constant. An exact trajectory keeps it; the error of the leapfrog is what acceptance corrects.
    def height(at: _Place, v: jax.Array) -> jax.Array:
        return at.prior + beta * at.likelihood - 0.5 * jnp.sum(jnp.square(v), -1)

    def leap(carry: tuple, _: None) -> tuple[tuple, None]:
        at, v = carry
        # Half a step of velocity, one of position, half a step of velocity: reversible, and it keeps volumes.
        v = v + 0.5 * step * force(at)
        at = look(at.z + step * v)
        return (at, v + 0.5 * step * force(at)), None

    # Each move draws twice, so its key has two sites.
    moving, accepting = (jax.vmap(jax.vmap(lambda k, n=n: prng.site_key(k, n)))(keys) for n in ("velocity", "accept"))
    v = jax.vmap(lambda k: prng.normal(k, old.z.shape[2:]))(moving)
    (new, after), _ = jax.lax.scan(leap, (old, v), None, length=leapfrog)
    # The logarithm of the acceptance ratio.
    gain = height(new, after) - height(old, v)
    gain = jnp.where(jnp.isnan(gain), -jnp.inf, gain)  # a path that left all numbers is rejected
    accepted = jnp.log(jax.vmap(lambda k: prng.uniform(k, ()))(accepting)) < gain

    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        # accepted is [C, B]; the leaves are [C, B] or [C, B, D].
        return jnp.where(accepted.reshape(*accepted.shape, *(1,) * (a.ndim - 2)), a, b)

    # A rejected chain keeps its densities and gradients too, so nothing is evaluated again.
    return jax.tree.map(choose, new, old), jnp.exp(jnp.minimum(gain, 0.0))


def _numbered(keys: jax.Array, number: jax.Array) -> jax.Array:
    """Returns the keys [C, B] of move `number`, from one key per chain and example."""
    return jax.vmap(prng.numbered_keys, (0, None))(keys, number)


def _add(total: tuple[jax.Array, jax.Array], x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns (sum, what rounding left out) with x added: thousands of temperatures cost no digits (Kahan 1965)."""
    value, lost = total
    x = x + lost
    # In exact arithmetic x - (new - value) is 0; in float32 it is what this addition rounded away.
    new = value + x
    return new, x - (new - value)
