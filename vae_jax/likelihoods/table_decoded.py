"""Decoded distributions of rows of a table, made by the config in `table`."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import prng
from vae_jax.distributions.gaussian import LOG_2PI
from vae_jax.distributions.special import cross_entropy
from vae_jax.files.columns import Column
from vae_jax.likelihoods import count_masses as masses
from vae_jax.likelihoods.continuous import StudentTPixels
from vae_jax.likelihoods.count_masses import Means
from vae_jax.likelihoods.counted import NegativeBinomialCounts
from vae_jax.likelihoods.decoded import WIDEST, sum_pixels
from vae_jax.likelihoods.table_layout import Layout, layout

HIDDEN = -1e30  # log mass of a level that a block does not have; minus infinity would make NaN of gradients
FAR = 1e30  # threshold above all others
LEAST_MEAN = 1e-3  # by which counts are scaled, where all were 0


class Scaled(NamedTuple):
    """Means of counts as the decoder gives them: softplus(out) e^(`log_scale`), [B, C], whatever x is."""

    out: jax.Array
    log_scale: jax.Array

    def given(self, x: jax.Array, mask: jax.Array | None) -> Means:
        """Returns the means [B, C]; the other counts of a row say nothing of them."""
        del x, mask
        return self.typical()

    def typical(self) -> Means:
        """Returns the means [B, C] and their logs, which hold on where the means underflow."""
        # softplus: e^out would leave float32 at 89. Below -15 it is e^out to all digits, and its log is out.
        value, far = jax.nn.softplus(self.out), self.out < -15.0
        log = jnp.where(far, self.out, jnp.log(jnp.where(far, 1.0, value)))
        return Means(value * jnp.exp(self.log_scale), log + self.log_scale)


def count_scale(means: np.ndarray) -> jax.Array:
    """Returns the log scales [1, C] with which an output of 0 is the mean count of the training split."""
    return jnp.log(jnp.maximum(jnp.asarray(means)[None], LEAST_MEAN) / math.log(2.0))


def ordinal_log_p(
    score: jax.Array, threshold: jax.Array, log_gap: jax.Array, sizes: np.ndarray, most: int
) -> jax.Array:
    """Returns log p(level) of the cumulative logit, p(y <= k) = sigmoid(t_k - score), [B, O, L].

    Args:
      score: [B, O]; the larger, the higher the level.
      threshold: t_0 of each column [O].
      log_gap: logs of t_k - t_(k-1) [O, T], T what the longest column needs.
      sizes: thresholds of each column [O], one less than its levels.
      most: L, levels of the longest block of the table.

    Returns:
      nats [B, O, L]; `HIDDEN` beyond the last level of a column.
    """
    # Gaps below each level [O, L]: of the lowest and the highest one there is no end.
    level = np.arange(most)[None]
    inner = (level > 0) & (level < sizes[:, None])
    width = max(most - 1, 0)
    between = jnp.pad(jnp.exp(log_gap), ((0, 0), (0, max(width - log_gap.shape[1], 0))))[:, :width]
    gap = jnp.where(inner, jnp.pad(between, ((0, 0), (1, 0)))[:, :most], FAR)
    # t [O, L - 1]; those that a column does not have lie far above.
    steps = jnp.where(inner, gap, 0.0)[:, :width]
    t = jnp.where(level[:, :width] < sizes[:, None], threshold[:, None] + jnp.cumsum(steps, 1), FAR)
    above = jnp.pad(t, ((0, 0), (0, 1)), constant_values=FAR)[None] - score[..., None]
    below = jnp.pad(t, ((0, 0), (1, 0)), constant_values=-FAR)[None] - score[..., None]
    # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - e^(b - a)), of which no factor cancels; the gap a - b is
    # taken as it is, for a difference of thresholds would lose a small one.
    found = jax.nn.log_sigmoid(above) + jax.nn.log_sigmoid(-below) + jnp.log(-jnp.expm1(-gap))[None]
    is_level = jnp.asarray(level <= sizes[:, None])[None]
    return jnp.where(is_level, found, HIDDEN)


def categorical_log_p(logits: jax.Array, held: Layout) -> jax.Array:
    """Returns log p(level) of the categorical columns [B, M, L], of their logits one after the other [B, sum]."""
    # Levels that a column does not have take no part in the softmax.
    own = held.is_level[len(held.thresholds) :][None]
    found = jnp.where(own, jnp.take(logits, held.logit_at, axis=1), HIDDEN)
    return jnp.where(own, jax.nn.log_softmax(found, axis=-1), HIDDEN)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["loc", "log_std", "df", "bits", "counts", "levels"],
    meta_fields=["columns"],
)
@dataclasses.dataclass(frozen=True)
class TableRows:
    """p(x|z) of rows of a table: independent columns.

    Attributes:
      loc: of the numeric columns, then of the student ones, in units of the standardized columns [B, N].
      log_std: their log standard deviations (scales), [1, N].
      df: degrees of freedom of the student columns [1, S].
      bits: logits of the binary columns [B, M].
      counts: distribution of the counts [B, C]; None where there are none.
      levels: log p of each level of the ordinal columns, then of the categorical ones [B, K, L].
      columns: of the table.
    """

    loc: jax.Array
    log_std: jax.Array
    df: jax.Array
    bits: jax.Array
    counts: Any
    levels: jax.Array
    columns: tuple[Column, ...]

    @property
    def _layout(self) -> Layout:
        return layout(self.columns)

    def log_prob(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Returns log p(x|z) in nats [B] of rows in the units of the table, x in its encoded form [B, E]."""
        return sum_pixels(self.by_column(x, mask))

    def by_column(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Returns the log p of each column in nats [B, C], in the order of the table; exactly 0 where it is missing."""
        held = self._layout
        # In the order of the groups: numbers, bits, counts, blocks; each [B, columns of the group].
        parts = [self._numbers(x, held)]
        parts.append(-cross_entropy(self.bits, x[:, held.at["binary"]]))
        parts.append(self._counts(x[:, held.at["count"]]))
        # One-hot blocks: the log p of the level that is 1.
        chosen = jnp.where(held.is_level[None], jnp.take(x, held.block_at, axis=1), 0.0)
        parts.append(jnp.sum(jnp.where(chosen > 0, chosen * self.levels, 0.0), -1))
        found = jnp.concatenate(parts, 1)[:, held.to_columns]
        if mask is None:
            return found
        # A column is missing as a whole: its first number says so.
        firsts = np.concatenate([held.numbers, held.at["binary"], held.at["count"], held.block_at[:, :1].ravel()])
        return jnp.where(mask[:, firsts.astype(int)[held.to_columns]], found, 0.0)

    def _numbers(self, x: jax.Array, held: Layout) -> jax.Array:
        """Returns the log densities of the numeric and student columns [B, N], in the units of the table."""
        seen, cut = x[:, held.numbers], len(held.at["numeric"])
        loc, log_std = self.loc, jnp.broadcast_to(self.log_std, (1, len(held.means)))
        scaled = (seen - loc)[:, :cut] * jnp.exp(-log_std[:, :cut])
        normal = -(0.5 * jnp.square(scaled) + log_std[:, :cut] + 0.5 * LOG_2PI)
        heavy = _student(seen[:, cut:], loc[:, cut:], log_std[:, cut:], self.df)
        # d x / d standardized = std, and x std of a column whose logs are standardized.
        log_x = seen * held.stds[None] + held.means[None]
        slope = jnp.log(jnp.asarray(held.stds))[None] + jnp.where(held.logs[None], log_x, 0.0)
        return jnp.concatenate([normal, heavy], 1) - slope

    def _counts(self, x: jax.Array) -> jax.Array:
        """Returns the log masses of the counts [B, C]."""
        if self.counts is None:
            return jnp.zeros((x.shape[0], 0))
        if isinstance(self.counts, NegativeBinomialCounts):
            return self.counts.masses(x, None)
        return masses.poisson(x, self.counts.expected.typical())

    def _row(self, numbers: jax.Array, bits: jax.Array, counts: jax.Array | None, levels: jax.Array) -> jax.Array:
        """Returns rows [B, E] of the numbers of each group; levels [B, K, L]."""
        held = self._layout
        # [B, K, L] to the levels that there are, and everything into the order of a row.
        blocks = levels.reshape(len(levels), -1)[:, np.flatnonzero(held.is_level.ravel())]
        middle = [] if counts is None else [counts]
        return jnp.concatenate([numbers, bits, *middle, blocks], 1)[:, held.to_row]

    def mean(self) -> jax.Array:
        """Returns E[x|z] [B, E]: of levels their probabilities."""
        counts = None if self.counts is None else self.counts.mean()
        return self._row(self.loc, jax.nn.sigmoid(self.bits), counts, jnp.exp(self.levels))

    def mode(self) -> jax.Array:
        """Returns the most probable row [B, E]: of each block one level is 1."""
        counts = None if self.counts is None else self.counts.mode()
        bits = (self.bits > 0).astype(jnp.float32)
        return self._row(self.loc, bits, counts, self._one_hot(self.levels))

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns x ~ p(x|z) [B, E] from one key per example: of each block one level is 1."""
        # A site per group: a column more of one kind leaves the draws of the others as they were.
        held, site = self._layout, [prng.numbered_keys(keys, i) for i in range(5)]
        cut, shape = len(held.at["numeric"]), self.loc.shape[1:]
        # Capped: where training leaves a log scale huge, a row must stay finite.
        std = jnp.exp(jnp.minimum(jnp.broadcast_to(self.log_std, (1, *shape)), WIDEST))
        noise = prng.normal(site[0], (cut,))
        heavy = StudentTPixels(jnp.zeros_like(self.loc[:, cut:]), jnp.zeros(()), self.df).sample(site[1])
        numbers = self.loc + std * jnp.concatenate([noise, heavy], 1)
        bits = (prng.uniform(site[2], self.bits.shape[1:]) < jax.nn.sigmoid(self.bits)).astype(jnp.float32)
        counts = None if self.counts is None else self.counts.sample(site[3])
        # The largest of log p + Gumbel noise is drawn with the probabilities p.
        u = jnp.maximum(prng.uniform(site[4], self.levels.shape[1:]), 2.0**-25)
        return self._row(numbers, bits, counts, self._one_hot(self.levels - jnp.log(-jnp.log(u))))

    def _one_hot(self, score: jax.Array) -> jax.Array:
        # Of no block there is no largest.
        if not score.shape[-1]:
            return score
        return jax.nn.one_hot(jnp.argmax(score, -1), score.shape[-1])


def _student(x: jax.Array, loc: jax.Array, log_scale: jax.Array, df: jax.Array) -> jax.Array:
    """Returns the log densities of Student's t, elementwise [B, S]; see `StudentTPixels.log_prob`."""
    norm = jax.scipy.special.gammaln(0.5 * df) - jax.scipy.special.gammaln(0.5 * df + 0.5)
    t = (x - loc) * jnp.exp(-log_scale)
    half = 0.5 * (df + 1.0) * jnp.log1p(jnp.square(t) / df)
    return -(half + log_scale + norm + 0.5 * jnp.log(df * math.pi))
