"""What every score takes and gives: codes and factors that were looked at, and a value with its sampling error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from vae_jax.errors import InputError

Discrete = bool | Sequence[bool] | np.ndarray  # which code dimensions are discrete: all or none, or one entry each
RESAMPLES = 20  # bootstrap samples, each of which costs as much as the score; an error from 20 is good to 16 %
GROUPS = 5  # disjoint parts of the rows, for the sampling error of scores too slow or unfit for the bootstrap


class Score(NamedTuple):
    """A value and its standard error (None where it could not be had: too few rows)."""

    value: float
    stderr: float | None


class Table(NamedTuple):
    """Codes and factors that passed the checks.

    Attributes:
      codes: float64 [N, D].
      factors: int64 [N, F], each column counted from 0 in the order of its values.
      sizes: number of values of each factor, F of them.
    """

    codes: np.ndarray
    factors: np.ndarray
    sizes: tuple[int, ...]


def unmasked(name: str, values: object) -> np.ndarray:
    """Returns values of any kind as an array.

    Args:
      name: what the values are, for messages.
      values: an array, or lists.

    Raises:
      InputError: rows of several lengths, or a masked array with masked entries.
    """
    # `np.asarray` drops the mask and takes the numbers below it, which mean nothing.
    if np.ma.is_masked(values):
        raise InputError(f"{name}: {int(np.ma.count_masked(values))} masked entries; fill or drop them")
    try:
        return np.asarray(values)
    except ValueError:
        raise InputError(f"{name}: the rows have several lengths; give rows of one length") from None


def numbers(name: str, values: object) -> np.ndarray:
    """Returns real numbers as float64.

    Args:
      name: what the values are, for messages.
      values: an array, or lists.

    Raises:
      InputError: as of `unmasked`, complex numbers, or no numbers.
    """
    raw = unmasked(name, values)
    # A cast to float64 would drop the imaginary parts with a warning.
    if raw.dtype.kind == "c":
        raise InputError(f"{name}: the numbers are complex; give real ones, such as np.abs(...)")
    try:
        if raw.dtype.kind in "USmM":
            raise TypeError
        return raw.astype(np.float64, copy=False)
    except (TypeError, ValueError):
        raise InputError(f"{name}: entries of type {raw.dtype} are not numbers; give floats") from None


def table(
    metric: str,
    codes: np.ndarray,
    factors: np.ndarray,
    names: Sequence[str] = (),
    *,
    least_codes: int = 1,
    least_factors: int = 1,
) -> Table:
    """Returns the codes and factors in the form that the scores use.

    Args:
      metric: name for messages.
      codes: numbers [N, D].
      factors: the value of each generative factor [N, F]; a few values each, of any kind.
      names: of the factors, for messages; their numbers if there are none.
      least_codes, least_factors: how many the score compares.

    Returns:
      checked arrays; factors are replaced by the numbers of their values.

    Raises:
      InputError: as of `numbers`, wrong shapes, a code or factor that is not finite, a factor that is constant, or one
        of so many values that it is no label.
    """
    codes, raw = numbers(f"{metric}: codes", codes), unmasked(f"{metric}: factors", factors)
    if codes.ndim != 2 or raw.ndim != 2:
        raise InputError(f"{metric}: codes {codes.shape} and factors {raw.shape} must be [N, D] and [N, F]")
    if len(codes) != len(raw):
        raise InputError(f"{metric}: {len(codes)} codes and {len(raw)} rows of factors; every code needs its factors")
    if len(codes) < 2:
        raise InputError(f"{metric}: {len(codes)} rows; it needs 2 or more")
    if codes.shape[1] < least_codes:
        raise InputError(f"{metric}: {codes.shape[1]} code dimensions; it compares {least_codes} or more")
    if raw.shape[1] < least_factors:
        raise InputError(f"{metric}: {raw.shape[1]} factors; it needs {least_factors} or more")
    bad = ~np.isfinite(codes)
    if bad.any():
        row, dim = np.argwhere(bad)[0]
        raise InputError(f"{metric}: code dimension {dim} is not finite (row {row}); take that row or dimension out")
    labels, sizes = [], []
    for k in range(raw.shape[1]):
        name = repr(names[k]) if k < len(names) else str(k)
        if raw.dtype.kind == "f" and not np.isfinite(raw[:, k]).all():
            raise InputError(f"{metric}: factor {name} is not finite; take those rows out")
        values, label = np.unique(raw[:, k], return_inverse=True)
        if len(values) < 2:
            raise InputError(
                f"{metric}: factor {name} is constant, {values[0]} in all {len(raw)} rows; leave it out, or measure "
                "rows where it varies"
            )
        if len(values) > max(2, len(raw) // 2):
            raise InputError(
                f"{metric}: factor {name} has {len(values)} values in {len(raw)} rows; give more rows, or bin it to "
                "fewer values"
            )
        labels.append(label)
        sizes.append(len(values))
    return Table(codes, np.stack(labels, axis=1), tuple(sizes))


def split(metric: str, n: int, train: int, test: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows [train] and [test] of a seeded draw without replacement from n rows.

    Args:
      metric: name for messages.
      n: rows in all.
      train: rows to fit on.
      test: rows to score on.
      seed: of the draw.

    Returns:
      row numbers int [train] and int [test], without a row in common.

    Raises:
      InputError: fewer rows than that.
    """
    if train < 1 or test < 1:
        raise InputError(f"{metric}: train {train} and test {test} must be 1 or more")
    if n < train + test:
        raise InputError(
            f"{metric}: {n} rows, and it needs {train + test} (train {train}, test {test}); give more rows, or smaller "
            "train and test"
        )
    order = np.random.default_rng(seed).permutation(n)
    return order[:train], order[train : train + test]


def bootstrap_error(
    score: Callable[..., Sequence[float]],
    *rows: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
    share: float = 1.0,
) -> tuple[float | None, ...]:
    """Returns the standard errors of scores by the bootstrap: their sd over rows drawn with replacement.

    The whole procedure is repeated on each draw, fits, votes and test rows included, since all of them spread from
    sample to sample. Parts of the rows would be cheaper (`group_error`), but claimed half to three quarters of the true
    spread of `irs`, `sap` and the scores that vote (`results/studies/stderr.json`). A score's bias is not in it.

    Args:
      score: what is measured, `(*drawn rows) -> values`.
      rows: index arrays (of training and of test rows, say); each is drawn from separately.
      resamples: 0 or 1 measures no error.
      seed: of the draws.
      share: of the rows in each draw. Below 1 for scores of extremes, whose spread hardly falls with the rows and which
        a draw of all rows repeats too faithfully; nothing is scaled back, so the error is rather too large.

    Returns:
      one error per value; () where there is none: no resamples, or too few rows to be measured again.
    """
    if resamples < 0:
        raise InputError(f"resamples: {resamples} must be 0 or more")
    if resamples < 2:
        return ()
    rng = np.random.default_rng([seed, 2])
    try:
        drawn = [score(*(rng.choice(r, max(int(share * len(r)), 1)) for r in rows)) for _ in range(resamples)]
    except (InputError, ValueError):  # a factor is constant in a draw, or a class is missing
        return ()
    spread = np.std(np.asarray(drawn, np.float64), axis=0, ddof=1)
    return tuple(float(s) if np.isfinite(s) else None for s in spread)


def group_error(
    score: Callable[..., Sequence[float]], *rows: np.ndarray, groups: int = GROUPS
) -> tuple[float | None, ...]:
    """Returns the standard errors of scores by the method of groups: sd of the scores of disjoint parts / sqrt(groups).

    The spread of a score falls as 1/sqrt(N), so parts of N/groups rows spread sqrt(groups) times as much as the whole.
    Whatever the score trains is trained again on each part, so that the error holds all of its noise. A score's bias is
    not in it. Where the spread does not fall so, near a score's limit or of extremes, it is too small: a lower bound.

    Args:
      score: what is measured, `(*rows of a part) -> values`.
      rows: index arrays in random order (of training and of test rows, say); each is cut into `groups` parts.
      groups: 0 or 1 measures no error.

    Returns:
      one error per value; all None where the parts are too small to be measured. () for no parts.
    """
    if groups < 2:
        return ()
    try:
        parts = [score(*(r[g::groups] for r in rows)) for g in range(groups)]
    except (InputError, ValueError):  # a factor is constant in a part, or a class is missing
        return ()
    spread = np.std(np.asarray(parts, np.float64), axis=0, ddof=1) / np.sqrt(groups)
    return tuple(float(s) if np.isfinite(s) else None for s in spread)


def resampled(
    metric: str, facts: Table, names: Sequence[str], resamples: int, seed: int, score, share: float = 1.0
) -> tuple:
    """Returns the standard errors of `score(table of drawn rows)` by the bootstrap over the rows.

    Args:
      metric: name for messages.
      facts: codes and factors of all rows.
      names: of the factors, for messages.
      resamples: bootstrap samples; 0 or 1 measures no error.
      seed: of the bootstrap.
      score: table -> numbers of fixed length, each of which gets an error.
      share: of the rows in each draw, as for `bootstrap_error`.

    Returns:
      one standard error for each number of `score`; () where there is none.
    """

    def value(rows: np.ndarray) -> Sequence[float]:
        return score(table(metric, facts.codes[rows], facts.factors[rows], names))

    return bootstrap_error(value, np.arange(len(facts.codes)), resamples=resamples, seed=seed, share=share)


def scores(values: Sequence[float], errors: tuple[float | None, ...]) -> list[Score]:
    """Returns the values beside their errors, None where there are none."""
    return [Score(float(v), errors[i] if errors else None) for i, v in enumerate(values)]


def moving(codes: np.ndarray) -> np.ndarray:
    """Returns which dimensions of codes [N, D] change, bool [D]; a rounding error in the variance is no change."""
    return np.ptp(codes, axis=0) > 0


def standardized(codes: np.ndarray, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Returns codes [N, D] in units of the mean and standard deviation of `rows`; 0 where those do not change."""
    of = codes[rows]
    changes = moving(of)
    return np.where(changes, (codes - of.mean(0)) / np.where(changes, of.std(0), 1.0), 0.0)


def one_hot_codes(codes: np.ndarray, discrete: np.ndarray) -> np.ndarray:
    """Returns the codes with every discrete column [N] replaced by one column per value, float64 [N, D']."""
    columns = []
    for d in range(codes.shape[1]):
        if discrete[d]:
            values, label = np.unique(codes[:, d], return_inverse=True)
            columns.append(np.eye(len(values))[label])
        else:
            columns.append(codes[:, d : d + 1])
    return np.concatenate(columns, axis=1)


def mask(metric: str, discrete: Discrete, dims: int) -> np.ndarray:
    """Returns which code dimensions are discrete, bool [D].

    Raises:
      InputError: another number of them than of dimensions.
    """
    which = np.broadcast_to(discrete, (dims,)) if np.ndim(discrete) == 0 else np.asarray(discrete, bool)
    if which.shape != (dims,):
        raise InputError(f"{metric}: discrete has {len(which)} entries for {dims} code dimensions; give one each")
    return which
