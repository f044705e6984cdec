"""Scores that hold one factor still and look at what moves in the codes: BetaVAE and FactorVAE.

The papers draw new images with a factor held fixed. Here rows with the same value of that factor are drawn from the
ones given, with replacement. On rows that are a uniform sample of the factor grid, or all of it, the two have the same
distribution but for rows drawn twice.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vae_jax.errors import InputError
from vae_jax.metrics.arrays import RESAMPLES, Table, moving, resampled, scores, table

VOTES = 1000  # votes whose batches are held at a time


class Accuracy(NamedTuple):
    """How often the fixed factor is recognized.

    Attributes:
      value: accuracy on the evaluation votes.
      stderr: bootstrap over rows: all again on rows drawn with replacement, with other draws of batches and votes.
      train: accuracy on the training votes.
      active: code dimensions that took part, bool [D].
      votes: for the FactorVAE score, training votes of each factor for each dimension, int [F, D]; else None.
    """

    value: float
    stderr: float | None
    train: float
    active: np.ndarray
    votes: np.ndarray | None = None


class _Held(NamedTuple):
    """Rows ordered by each factor's value: `order` [F, N], and where each value starts and how many rows it has."""

    order: np.ndarray
    first: list[np.ndarray]
    count: list[np.ndarray]


def betavae_score(
    codes: np.ndarray,
    factors: np.ndarray,
    *,
    train: int = 10_000,
    test: int = 5_000,
    batch: int = 64,
    names: Sequence[str] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Accuracy:
    """BetaVAE score: can a linear classifier tell which factor a batch of pairs has in common?

        x_v = 1/B sum_b |z_b - z'_b|,   z_b and z'_b of rows with the same value of factor v;   accuracy of x_v -> v

    disentanglement_lib's settings: logistic regression (C = 1) on 10,000 points, 5,000 to test, 64 pairs each.

    Args:
      codes: mean codes [N, D].
      factors: values of the factors [N, F], F >= 2.
      train, test: points.
      batch: B, pairs a point.
      names: of the factors, for messages.
      resamples: bootstrap samples for the standard error, each as costly as the score; 0 for none.
      seed: of the draws.

    Returns:
      `Accuracy`, 1/F (chance) to 1, higher is better.

    Raises:
      InputError: codes that are not finite, a constant factor, wrong shapes, or a number below 1.

    Reference: Higgins et al. 2017 (ICLR); settings of arXiv:1811.12359

    Example:
      >>> factors = np.array([[i, j] for i in range(4) for j in range(4)] * 25)
      >>> betavae_score(factors, factors, train=300, test=100, batch=8, resamples=0).value  # the factors as codes
      1.0
    """
    facts = table("betavae_score", codes, factors, names, least_factors=2)
    _positive("betavae_score", train=train, test=test, batch=batch)

    def score(facts: Table, train: int, test: int, rng: np.random.Generator) -> tuple[float, float]:
        from sklearn.linear_model import LogisticRegression

        held = _held(facts)
        x, label = _pairs(facts, held, rng, train, batch)
        seen, truth = _pairs(facts, held, rng, test, batch)
        if len(np.unique(label)) < 2:
            raise InputError(f"betavae_score: all {train} training points are of one factor; give more")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not wholly converged: the accuracy no longer moves
            model = LogisticRegression(max_iter=1000).fit(x, label)
        return float(np.mean(model.predict(seen) == truth)), float(np.mean(model.predict(x) == label))

    value, learned = score(facts, train, test, np.random.default_rng(seed))

    # Each resample draws its own batches: draws in common would hide their share of the error.
    own = np.random.default_rng([seed, 1])

    def again(drawn: Table) -> tuple[float, ...]:
        return score(drawn, train, test, own)[:1]

    (found,) = scores([value], resampled("betavae_score", facts, names, resamples, seed, again))
    return Accuracy(found.value, found.stderr, learned, np.ones(facts.codes.shape[1], bool))


def factorvae_score(
    codes: np.ndarray,
    factors: np.ndarray,
    *,
    train: int = 10_000,
    test: int = 5_000,
    batch: int = 64,
    threshold: float = 0.05,
    variance_rows: int = 10_000,
    names: Sequence[str] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Accuracy:
    """FactorVAE score: does the dimension that moves least tell which factor is held?

        d* = argmin_d Var_batch(z_d) / Var(z_d);   the majority vote of each d* is the factor;   accuracy on new votes

    disentanglement_lib's settings: batches of 64, 10,000 training and 5,000 evaluation votes, variances from 10,000
    rows, dimensions with a standard deviation under 0.05 left out. Its own `num_active_dims` always says D; `active`
    here says which dimensions took part. With none the score is 0.

    Args:
      codes, factors, batch, names, resamples, seed: as for `betavae_score`; batch >= 2.
      train, test: votes.
      threshold: least standard deviation of a dimension that takes part.
      variance_rows: most rows for Var(z_d).

    Returns:
      `Accuracy`, about 1/F (chance) to 1, higher is better.

    Raises:
      InputError: as `betavae_score`; threshold below 0.

    Reference: arXiv:1802.05983, section 4; settings of arXiv:1811.12359

    Example:
      >>> factors = np.array([[i, j] for i in range(4) for j in range(4)] * 25)
      >>> factorvae_score(factors, factors, train=300, test=100, batch=8, resamples=0).value  # the factors as codes
      1.0
    """
    facts = table("factorvae_score", codes, factors, names, least_factors=2)
    _positive("factorvae_score", train=train, test=test, batch=batch - 1, variance_rows=variance_rows - 1)
    if threshold < 0:
        raise InputError(f"factorvae_score: threshold {threshold} must be 0 or more")

    def score(
        facts: Table, train: int, test: int, rng: np.random.Generator
    ) -> tuple[float, float, np.ndarray, np.ndarray]:
        held = _held(facts)
        some = rng.permutation(len(facts.codes))[:variance_rows]
        variances = facts.codes[some].var(0, ddof=1)
        active = (np.sqrt(variances) >= threshold) & moving(facts.codes[some])
        votes = np.zeros((len(facts.sizes), len(variances)), np.int64)
        if not active.any():
            return 0.0, 0.0, active, votes
        counted = [_votes(facts, held, rng, n, batch, variances, active) for n in (train, test)]
        chosen = counted[0].argmax(0)
        right = [votes[chosen, np.arange(len(variances))].sum() / votes.sum() for votes in counted]
        return float(right[1]), float(right[0]), active, counted[0]

    value, learned, active, votes = score(facts, train, test, np.random.default_rng(seed))

    # Each resample draws its own batches: draws in common would hide their share of the error.
    own = np.random.default_rng([seed, 1])

    def again(drawn: Table) -> tuple[float, ...]:
        return score(drawn, train, test, own)[:1]

    errors = resampled("factorvae_score", facts, names, resamples, seed, again)
    (found,) = scores([value], errors)
    return Accuracy(found.value, found.stderr, learned, active, votes)


def _held(facts: Table) -> _Held:
    order = np.argsort(facts.factors, axis=0, kind="stable").T
    count = [np.bincount(facts.factors[:, k], minlength=size) for k, size in enumerate(facts.sizes)]
    return _Held(order, [np.cumsum(c) - c for c in count], count)


def _same(facts: Table, held: _Held, rng: np.random.Generator, rows: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Returns, for each of rows [V, B], a row with its value of factor which [V], drawn at random: int [V, B]."""
    out = np.empty_like(rows)
    u = rng.random(rows.shape)
    for k in range(len(facts.sizes)):
        at = which == k
        value = facts.factors[rows[at], k]
        out[at] = held.order[k][held.first[k][value] + (u[at] * held.count[k][value]).astype(np.int64)]
    return out


def _pairs(
    facts: Table, held: _Held, rng: np.random.Generator, points: int, batch: int
) -> tuple[np.ndarray, np.ndarray]:
    which = rng.integers(len(facts.sizes), size=points)
    means = np.empty((points, facts.codes.shape[1]))
    for start in range(0, points, VOTES):
        part = which[start : start + VOTES]
        one = rng.integers(len(facts.codes), size=(len(part), batch))
        other = _same(facts, held, rng, one, part)
        means[start : start + VOTES] = np.abs(facts.codes[one] - facts.codes[other]).mean(1)
    return means, which


def _votes(
    facts: Table,
    held: _Held,
    rng: np.random.Generator,
    number: int,
    batch: int,
    variances: np.ndarray,
    active: np.ndarray,
) -> np.ndarray:
    which = rng.integers(len(facts.sizes), size=number)
    votes = np.zeros((len(facts.sizes), len(variances)), np.int64)
    dims = np.flatnonzero(active)
    for start in range(0, number, VOTES):
        part = which[start : start + VOTES]
        first = rng.integers(len(facts.codes), size=(len(part), 1))
        rows = _same(facts, held, rng, np.repeat(first, batch, axis=1), part)
        still = dims[np.argmin(facts.codes[rows][:, :, dims].var(1, ddof=1) / variances[dims], axis=1)]
        np.add.at(votes, (part, still), 1)
    return votes


def _positive(metric: str, **numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            least = 2 if name in ("batch", "variance_rows") and metric == "factorvae_score" else 1
            raise InputError(f"{metric}: {name} {value + least - 1} must be {least} or more")
