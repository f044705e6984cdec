"""Decoded distributions of counts: pytrees of means, dispersions and gates, made by the configs in `counts`."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vae_jax import prng
from vae_jax.likelihoods import count_masses as masses
from vae_jax.likelihoods.count_masses import Means
from vae_jax.likelihoods.decoded import sum_pixels

MOST = 2**24 - 1  # float32 holds every whole number up to 2^24; 2^24 itself may stand for 2^24 + 1
HIDDEN = -1e30  # logit of an entry that is not observed; minus infinity would make NaN where none is
BLOCK = 256  # draws of a multinomial at a time
HALVINGS = 40  # of an interval of the length of D, until it is a unit of the last digit


class Expected(NamedTuple):
    """What the decoder says of the means of counts.

    Attributes:
      out: outputs of the decoder [B, *shape]: logits of the shares of a total, or what softplus makes the means.
      total: typical total, a scalar; None where totals have no part in the means.
    """

    out: jax.Array
    total: jax.Array | None

    def given(self, x: jax.Array, mask: jax.Array | None) -> Means:
        """Returns the means [B, *shape] beside x, of whose total they are shares."""
        if self.total is None:
            return self._free()
        seen = x if mask is None else jnp.where(mask, x, 0.0)
        return self._shares(totals(seen), mask)

    def typical(self) -> Means:
        """Returns the means [B, *shape] without x."""
        return self._free() if self.total is None else self._shares(self.total, None)

    def _free(self) -> Means:
        # softplus: e^out would leave float32 at 89. Below -15 it is e^out to all digits, and its log is out.
        value, far = jax.nn.softplus(self.out), self.out < -15.0
        return Means(value, jnp.where(far, self.out, jnp.log(jnp.where(far, 1.0, value))))

    def _shares(self, total: jax.Array, mask: jax.Array | None) -> Means:
        # Shares of what is observed: entries that are not take no part in the softmax.
        out = self.out if mask is None else jnp.where(mask, self.out, HIDDEN)
        log_share = jax.nn.log_softmax(out, axis=tuple(range(1, out.ndim)))
        # A row without any count has means of 0, hence log p = 0; its logs stay finite all the same.
        return Means(total * jnp.exp(log_share), jnp.log(jnp.where(total > 0, total, 1.0)) + log_share)


def totals(x: jax.Array) -> jax.Array:
    """Returns the total of each example, of shape [B, 1, ...] that broadcasts against x."""
    return jnp.sum(x, axis=tuple(range(1, x.ndim)), keepdims=True)


def _sum(terms: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Returns the sum [B] of the terms [B, *shape] of the entries that are observed."""
    return sum_pixels(terms if mask is None else terms * mask)


def _poisson(keys: jax.Array, rate: jax.Array) -> jax.Array:
    # Larger draws than that would not be exact in float32.
    draw = jax.vmap(lambda key, mean: jax.random.poisson(key, mean))
    return draw(keys, jnp.minimum(rate, float(MOST))).astype(jnp.float32)


def _gamma_poisson(keys: jax.Array, mean: Means, log_theta: jax.Array) -> jax.Array:
    """Returns draws of the negative binomial: Poisson counts whose rates are Gamma(theta, m / theta)."""
    theta = jnp.broadcast_to(jnp.exp(log_theta), mean.log.shape)
    # In logs: at a small theta most draws of the gamma underflow.
    gamma = jax.vmap(jax.random.loggamma)(prng.numbered_keys(keys, 0), theta)
    rate = jnp.exp(jnp.minimum(gamma - jnp.log(theta) + mean.log, math.log(MOST)))
    return _poisson(prng.numbered_keys(keys, 1), jnp.where(mean.value > 0, rate, 0.0))


class PoissonCounts(NamedTuple):
    """Independent Poisson counts."""

    expected: Expected

    def log_prob(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Returns sum x log m - m - log x! in nats [B]."""
        return _sum(masses.poisson(_filled(x, mask), self.expected.given(x, mask)), mask)

    def mean(self) -> jax.Array:
        """Returns m [B, *shape]."""
        return self.expected.typical().value

    def mode(self) -> jax.Array:
        """Returns floor(m) [B, *shape]."""
        return jnp.floor(self.mean())

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns counts [B, *shape], from one key per example."""
        return _poisson(keys, self.mean())


def _filled(x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Returns x with 0 where it is not observed: NaN times a mask of 0 would be NaN."""
    return x if mask is None else jnp.where(mask, x, 0.0)


class NegativeBinomialCounts(NamedTuple):
    """Counts of mean m and variance m + m^2 / theta; `log_theta` broadcasts against [B, *shape]."""

    expected: Expected
    log_theta: jax.Array

    def masses(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Returns log p of every entry in nats [B, *shape]."""
        return masses.negative_binomial(_filled(x, mask), self.expected.given(x, mask), jnp.exp(self.log_theta))

    def log_prob(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Returns sum log [Gamma(x + t) / (Gamma(t) x!) (t / (t + m))^t (m / (t + m))^x] in nats [B], t = theta."""
        return _sum(self.masses(x, mask), mask)

    def mean(self) -> jax.Array:
        """Returns m [B, *shape]."""
        return self.expected.typical().value

    def mode(self) -> jax.Array:
        """Returns floor(m (theta - 1) / theta) [B, *shape], 0 where theta is 1 or less."""
        return jnp.floor(self.mean() * jnp.maximum(0.0, -jnp.expm1(-self.log_theta)))

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns counts [B, *shape], from one key per example."""
        return _gamma_poisson(keys, self.expected.typical(), self.log_theta)


class ZeroInflatedCounts(NamedTuple):
    """Negative binomial counts, replaced by 0 with the probability pi = sigmoid(`gate`), [B, *shape]."""

    counts: NegativeBinomialCounts
    gate: jax.Array

    def log_prob(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Returns sum log (pi [x = 0] + (1 - pi) NB(x)) in nats [B]."""
        return _sum(masses.zero_inflated(_filled(x, mask), self.counts.masses(x, mask), self.gate), mask)

    def mean(self) -> jax.Array:
        """Returns (1 - pi) m [B, *shape]."""
        return jax.nn.sigmoid(-self.gate) * self.counts.mean()

    def mode(self) -> jax.Array:
        """Returns the most probable count [B, *shape]: 0, or the mode of the negative binomial."""
        # Added zeros lower all other masses alike, so that no third count can be the most probable.
        mean, theta = self.counts.expected.typical(), jnp.exp(self.counts.log_theta)
        other = self.counts.mode()
        heights = (
            masses.zero_inflated(k, masses.negative_binomial(k, mean, theta), self.gate)
            for k in (jnp.zeros_like(other), other)
        )
        return jnp.where(jnp.greater_equal(*heights), 0.0, other)

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns counts [B, *shape], from one key per example."""
        # Sites 0 and 1 of each key are those of the counts.
        counts = self.counts.sample(keys)
        u = prng.uniform(prng.numbered_keys(keys, 2), self.gate.shape[1:])
        return jnp.where(u < jax.nn.sigmoid(self.gate), 0.0, counts)


class MultinomialCounts(NamedTuple):
    """Counts of n draws with the probabilities softmax(out), n the total of x."""

    expected: Expected

    def log_prob(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Returns log n! - sum log x_i! + sum x_i log p_i in nats [B], of the entries that are observed."""
        seen = _filled(x, mask)
        terms = masses.poisson(seen, self.expected.given(x, mask))
        return _sum(terms, mask) + masses.multinomial_rest(totals(seen).reshape(-1))

    def mean(self) -> jax.Array:
        """Returns n p [B, *shape], n the typical total."""
        return self.expected.typical().value

    def mode(self) -> jax.Array:
        """Returns the most probable counts [B, *shape] of the typical total, rounded."""
        share = self.expected._replace(total=jnp.ones(())).typical().value
        flat = share.reshape(len(share), -1)
        return jax.vmap(_most_probable, (0, None))(flat, self._total()).reshape(share.shape)

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns counts [B, *shape] of the typical total, rounded, from one key per example."""
        # Shares are means of a total of 1.
        share = self.expected._replace(total=jnp.ones(())).typical().value
        flat = share.reshape(len(share), -1)
        return jax.vmap(_draws, (0, None, 0))(keys, self._total(), flat).reshape(share.shape)

    def _total(self) -> jax.Array:
        assert self.expected.total is not None
        return jnp.round(jnp.minimum(self.expected.total, float(MOST)))


def _draws(key: jax.Array, total: jax.Array, share: jax.Array) -> jax.Array:
    """Returns how often each of `total` draws hits each share [D]."""
    # A block of draws at a time, by the inverse distribution function: jax.random.multinomial takes 6 s to compile.
    edges, place = jnp.cumsum(share), jnp.arange(BLOCK)

    def block(number: jax.Array, counts: jax.Array) -> jax.Array:
        u = jax.random.uniform(jax.random.fold_in(key, number), (BLOCK,)) * edges[-1]
        hit = jnp.minimum(jnp.searchsorted(edges, u, side="right"), len(share) - 1)
        return counts.at[hit].add(jnp.where(number * BLOCK + place < total, 1.0, 0.0))

    return jax.lax.fori_loop(0, jnp.ceil(total / BLOCK).astype(jnp.int32), block, jnp.zeros_like(share))


def _most_probable(share: jax.Array, total: jax.Array) -> jax.Array:
    """Returns the mode [D] of a multinomial: floor(l p) of the l for which these add up to the total."""
    # Giving one count after the other to the entry with the largest p / (x + 1) ends there, at any total.
    size = share.shape[0]

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        enough = jnp.sum(jnp.floor(middle * share)) >= total
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    low, high = jax.lax.fori_loop(0, HALVINGS, halve, (total * (1 - 1e-6), (total + size) * (1 + 1e-6)))
    sure, more = jnp.floor(low * share), jnp.floor(high * share)
    # Entries that step up together are equally good: as many as are missing, the first of them.
    steps = more > sure
    return sure + jnp.where(steps & (jnp.cumsum(steps) <= total - jnp.sum(sure)), 1.0, 0.0)
