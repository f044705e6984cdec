"""Walks through latent space: pure functions that give codes; `decode_all` turns them into images."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np

from vae_jax.errors import InputError
from vae_jax.evaluation.codes import Codes

INACTIVE = 0.01  # nats; a dimension with a lower KL is unused: nothing that it decodes to differs


def by_size(values: np.ndarray) -> np.ndarray:
    """Returns the indices of values [D] from the largest to the smallest; NaN last, ties in their own order."""
    values = np.asarray(values, np.float64)
    # Negated, not reversed, so that a stable sort keeps ties in their own order.
    return np.argsort(-np.where(np.isnan(values), -np.inf, values), kind="stable")


def aggregate(codes: Codes) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation [D] of the aggregate posterior E_x[q(z|x)].

    std^2 = Var_x(E[z|x]) + E_x[Var(z|x)]: the prior's, for dimensions that match it, unused ones included.
    """
    # The law of total variance; a deterministic code has the first term alone.
    variance = codes.mean.astype(np.float64).var(0)
    if codes.log_var is not None:
        variance = variance + np.exp(codes.log_var.astype(np.float64)).mean(0)
    return codes.mean.astype(np.float64).mean(0), np.sqrt(variance)


def center(codes: Codes) -> int:
    """Returns the row whose mean code is nearest to the mean of all codes, in units of their spread."""
    mean = codes.mean.astype(np.float64)
    spread = mean.std(0)
    # Unused dimensions hardly vary. In units of their own spread their noise would count in full, so they are left out.
    scaled = np.where(spread > 0.1, (mean - mean.mean(0)) / np.maximum(spread, 1e-12), 0.0)
    # A code with a NaN is never the nearest.
    return int(np.argmin(np.nan_to_num(np.square(scaled).sum(-1), nan=np.inf)))


class Walk(NamedTuple):
    """A latent traversal: row r moves dimension dims[r] of `base` through values[r].

    Attributes:
      dims: dimensions moved [R].
      values: what they are set to [R, S].
      codes: the codes [R, S, D].
      unit: "" where all rows share their values, "sd" where they are in spreads of each dimension, "%" for quantiles.
      marks: the columns in that unit [S].
      kl: KL of each dimension moved, nats [R]; None without a posterior.
      std: standard deviation of the aggregate posterior in each dimension moved [R].
      variables: number of latent variables, where some are one-hot and D counts their entries; else 0.
      unused: dimensions that were left out because their KL is below `INACTIVE`; 0 where dimensions were chosen.
    """

    dims: np.ndarray
    values: np.ndarray
    codes: np.ndarray
    unit: str
    marks: np.ndarray
    kl: np.ndarray | None
    std: np.ndarray
    variables: int = 0
    unused: int = 0

    @property
    def words_for_unused(self) -> str:
        """What is said of the dimensions that are left out, or ""."""
        if not self.unused:
            return ""
        what = "1 dimension" if self.unused == 1 else f"{self.unused:,} dimensions"
        return f"{what} with a KL below {INACTIVE:g} nats not drawn"


def active(kl: Sequence[float] | None, sizes: np.ndarray, rows: int) -> tuple[np.ndarray, int]:
    """Returns the dimensions that a walk moves by default, and how many are left out as unused.

    Args:
      kl: KL of each dimension, nats [D]; None without a posterior, where nothing says which are unused.
      sizes: what they are ordered by [D], largest first.
      rows: the most dimensions.

    Returns:
      dimensions, at most `rows`: of a model that uses none the one of largest KL, so that there is one to see.
    """
    order = by_size(sizes)
    # Without a posterior nothing says which dimensions carry nothing.
    if kl is None:
        return order[:rows], 0
    # A KL that is no number may be any, and is shown.
    kept = np.array([d for d in order if not kl[d] < INACTIVE] or order[:1], int)
    return kept[:rows], len(order) - len(kept)


def walk(
    codes: Codes,
    kl: Sequence[float] | None,
    *,
    dims: Sequence[int] = (),
    base: np.ndarray | None = None,
    prior: tuple[float, float] | None = (0.0, 1.0),
    reach: float = 2.5,
    steps: int = 11,
    quantiles: bool = False,
    rows: int = 12,
    blocks: Sequence[int] = (),
) -> Walk:
    """Returns a traversal of the dimensions that carry most.

    Args:
      codes: codes of a batch of images.
      kl: KL of each dimension, nats [D]; None without a posterior, then dimensions are ordered by their spread.
      dims: dimensions to move; () for the `rows` of largest KL that are not unused (`active`).
      base: the code to start from [D]; None for the one of `codes` nearest to their mean.
      prior: mean and standard deviation of the prior, the unit of `reach`; None takes each dimension's own spread, as
        does a model without a posterior.
      reach: range, in standard deviations either way.
      steps: values of each dimension, S.
      quantiles: take quantiles of the codes instead, 0.5 % to 99.5 %.
      rows: the most dimensions that are moved.
      blocks: `Space.variables` of the latents. A dimension is a latent variable; a one-hot one goes through its
        values, and begins anew where there are more steps than values.

    Returns:
      codes [R, S, D] to decode, with what is needed to label them.
    """
    mean, std = aggregate(codes)
    if any(size > 1 for size in blocks):
        return _walk_variables(codes, kl, mean, std, np.asarray(blocks), dims, base, prior, reach, steps, rows)
    # Without a posterior the spread says which dimensions carry most.
    sizes = std if kl is None else np.asarray(kl, np.float64)
    moved, unused = (np.asarray(dims, int), 0) if len(dims) else active(kl, sizes, rows)
    marks = span(0.0, 1.0, reach, steps)
    # The values [R, S] in one of three units: quantiles, spreads of each dimension, or those of the prior.
    if quantiles:
        values, unit, marks = quantile_values(codes.mean, moved, steps), "%", 100 * probabilities(steps)
    elif prior is None or codes.log_var is None:
        values, unit = mean[moved, None] + std[moved, None] * marks, "sd"
    else:
        marks = span(*prior, reach, steps)
        # All rows share the values, as they share the prior.
        values, unit = np.tile(marks, (len(moved), 1)), ""
    # The code of a real image: the mean of all codes need not decode to a plausible one.
    start = codes.mean[center(codes)] if base is None else base
    codes_moved = traverse(start, moved, values)
    shown = None if kl is None else sizes[moved]
    return Walk(moved, values, codes_moved, unit, marks, shown, std[moved], unused=unused)


def _walk_variables(
    codes, kl, mean, std, blocks, dims, base, prior: tuple[float, float] | None, reach, steps, rows
) -> Walk:
    """Returns the walk of a code with one-hot variables in it; `dims` are variables, not entries of z."""
    first = np.cumsum(blocks) - blocks  # where each variable begins in z
    sizes = std[first] if kl is None else np.asarray(kl, np.float64)
    moved, unused = (np.asarray(dims, int), 0) if len(dims) else active(kl, sizes, rows)
    # Column s shows value s mod K of a one-hot variable with K values.
    turn = np.arange(steps)
    # The columns are numbers of values if all variables are one-hot, else those of the real ones.
    if np.all(blocks > 1):
        unit, marks = "", turn % int(blocks.max())
    elif prior is None:
        unit, marks = "sd", span(0.0, 1.0, reach, steps)
    else:
        unit, marks = "", span(*prior, reach, steps)
    # Where the moved variables begin in z. `traverse` sets these entries; one-hot blocks are replaced further down.
    entries = first[moved]
    values = mean[entries, None] + std[entries, None] * marks if unit == "sd" else np.tile(1.0 * marks, (len(moved), 1))
    for row, variable in enumerate(moved):
        if blocks[variable] > 1:
            values[row] = turn % blocks[variable]
    start = codes.mean[center(codes)] if base is None else base
    z = traverse(start, entries, values)
    for row, variable in enumerate(moved):
        if blocks[variable] > 1:
            begin, size = first[variable], blocks[variable]
            # The whole block: a one-hot code has zeros beside its one.
            z[row, :, begin : begin + size] = np.eye(size, dtype=z.dtype)[turn % size]
    shown = None if kl is None else sizes[moved]
    return Walk(moved, values, z, unit, marks, shown, std[entries], len(blocks), unused)


def traverse(base: np.ndarray, dims: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Returns codes [R, S, D]: row r is `base` with dimension dims[r] set to each of values[r].

    Args:
      base: the code to start from, [D].
      dims: dimensions to move, [R].
      values: what they are set to, [R, S] (or [S], the same for all).
    """
    dims, values = np.asarray(dims, int), np.asarray(values)
    # One row of values may serve all dimensions.
    values = np.broadcast_to(values, (len(dims), values.shape[-1]))
    # Copies of the base, [R, S, D].
    codes = np.tile(np.asarray(base), (*values.shape, 1))
    for row, d in enumerate(dims):
        codes[row, :, d] = values[row]
    return codes


def span(mean: float, std: float, reach: float, steps: int) -> np.ndarray:
    """Returns [steps] values from mean - reach * std to mean + reach * std; the mean alone for one step.

    Args:
      mean: center of the range.
      std: one standard deviation.
      reach: standard deviations either way.
      steps: how many values; 1 or more.

    Returns:
      float64, evenly spaced.
    """
    return mean + std * (np.linspace(-reach, reach, steps) if steps > 1 else np.zeros(1))


def probabilities(steps: int, tail: float = 0.005) -> np.ndarray:
    """Returns [steps] probabilities from `tail` to 1 - tail; one half for one step."""
    return np.linspace(tail, 1.0 - tail, steps) if steps > 1 else np.array([0.5])


def quantile_values(codes: np.ndarray, dims: np.ndarray, steps: int) -> np.ndarray:
    """Returns values [R, steps] of dims [R] at equal steps of probability over codes [N, D]."""
    return np.quantile(np.asarray(codes, np.float64)[:, dims], probabilities(steps), axis=0).T


def interpolate(
    start: np.ndarray, end: np.ndarray, steps: int, path: Literal["linear", "spherical"] = "linear"
) -> np.ndarray:
    """Returns codes [P, steps, D] from start [P, D] to end [P, D], both included.

    linear: (1 - t) a + t b. spherical: [sin((1 - t) w) a + sin(t w) b] / sin w with w the angle between a and b, which
    keeps the norm typical of a Gaussian prior on the way (Shoemake 1985); straight where a and b are parallel.

    Args:
      start: codes [P, D].
      end: codes [P, D].
      steps: codes on each path, both ends included.
      path: "linear" or "spherical".

    Returns:
      float64, at equal steps of t from 0 to 1.
    """
    a, b = np.asarray(start, np.float64)[:, None], np.asarray(end, np.float64)[:, None]
    # [1, S, 1], against codes [P, 1, D].
    t = np.linspace(0.0, 1.0, steps)[None, :, None]
    if path == "linear":
        return (1 - t) * a + t * b
    norms = np.linalg.norm(a, axis=-1, keepdims=True) * np.linalg.norm(b, axis=-1, keepdims=True)
    cosine = np.sum(a * b, -1, keepdims=True) / np.where(norms > 0, norms, 1.0)
    # Rounding can take the cosine beyond 1, where arccos is NaN.
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    # Parallel or opposite codes, and the zero code, do not define a unique great circle.
    straight = (np.sin(angle) < 1e-6) | (norms == 0)
    # `np.where` computes both branches, and the one that is dropped must not divide by 0.
    safe = np.where(straight, 1.0, np.sin(angle))
    on_arc = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / safe
    return np.where(straight, (1 - t) * a + t * b, on_arc)


def plane(side: int, mean: float = 0.0, std: float = 1.0) -> np.ndarray:
    """Returns codes [side, side, 2] at equal steps of prior probability (arXiv:1312.6114, app. A); z1 grows upwards."""
    normal = NormalDist(mean, std)
    # The middle of each of `side` equal shares of probability; the ends 0 and 1 are infinitely far out.
    axis = np.array([normal.inv_cdf((i + 0.5) / side) for i in range(side)])
    # Row 0 is the top of the figure, where z1 is largest.
    first, second = np.meshgrid(axis, axis[::-1])
    return np.stack([first, second], -1)


def attribute(codes: np.ndarray, values: np.ndarray, source: int, target: int) -> np.ndarray:
    """Returns the direction of an attribute, mean code with `target` less mean code with `source`, float64 [D].

    Args:
      codes: [N, D].
      values: of the attribute (a label, or one factor), int [N].
      source, target: the values that codes are to leave and to take on.

    Returns:
      what is added to a code to exchange the attribute once.

    Raises:
      InputError: no example has one of the values.

    References: arXiv:1609.04468, sec. 3.
    """
    means = []
    for value in (source, target):
        rows = np.asarray(codes, np.float64)[np.asarray(values) == value]
        if not len(rows):
            there = ", ".join(map(str, np.unique(values)))
            raise InputError(f"value {value}: none of {len(codes):,} examples has it; choose of {there}")
        means.append(rows.mean(0))
    return means[1] - means[0]
